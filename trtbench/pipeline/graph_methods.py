"""The variants that are graphs: INT8 aware training on the Q/DQ graph, and ONNX Runtime's dynamic INT8."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from trtbench import __version__
from trtbench._optional import version
from trtbench.jsonable import to_jsonable
from trtbench.store import write_atomically
from trtbench.suite import DenseVariant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.pipeline.artefacts import Artefacts
    from trtbench.store import Artefact
    from trtbench.suite import Variant


def before(variant: Variant) -> DenseVariant:
    """Return the variant that a graph is made from: the network the method starts from, as it is."""
    return DenseVariant(kind="dense", name=variant.name, after=variant.after)


def method_graph(artefacts: Artefacts, variant: Variant) -> Artefact:
    """Return the graph of such a variant: float and learnt for `qat`, with INT8 linear layers for `dynamic_int8`."""
    start = artefacts.graph(before(variant))
    inputs: dict[str, Any] = {
        "graph": start.sha256,
        "kind": variant.kind,
        "trtbench": __version__,
        **{package: version(package) for package in variant.packages},
    }
    if variant.reads_images():
        inputs |= {
            "ranges": artefacts.ranges(variant).sha256,
            **artefacts.learning_inputs(),
            "holds_zeros": artefacts.is_sparse(variant),
        }
        maker = partial(_learn, artefacts, variant, start)
    else:
        maker = partial(_dynamic, start)
    return artefacts.make("graph", variant.name, inputs, maker, content=("model.onnx",))


def _learn(artefacts: Artefacts, variant: Variant, start: Artefact, folder: Path) -> Mapping[str, Any]:
    import onnx

    from trtbench.compress.qat_int8 import learn_int8
    from trtbench.graph.placement import plan_qdq

    proto = onnx.load(start.path("model.onnx"))
    amax = json.loads(artefacts.ranges(variant).path("ranges.json").read_bytes())
    fits: dict[str, Any] = {}
    tune = artefacts.tuner(variant, folder, fits)
    plan = plan_qdq(proto)
    learnt = learn_int8(proto, plan, amax, tune=tune, is_sparse=artefacts.is_sparse(variant))
    write_atomically(folder / "model.onnx", learnt.SerializeToString(deterministic=True))
    notes = [*start.facts["notes"], f"learnt in INT8: {plan.summary}", *fits["fit"]["notes"]]
    return {**start.facts, **fits, "notes": notes}


def _dynamic(start: Artefact, folder: Path) -> Mapping[str, Any]:
    import onnx

    from trtbench.compress.dynamic_int8 import quantize_linear

    quantized, record = quantize_linear(onnx.load(start.path("model.onnx")))
    write_atomically(folder / "model.onnx", quantized.SerializeToString(deterministic=True))
    facts = {**to_jsonable(record), "share": record.share}
    return {**start.facts, "dynamic_int8": facts, "notes": [*start.facts["notes"], record.summary]}

"""What each calibration option brought: the INT8 graph with it and without it, on the validation images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.store import write_atomically
from trtbench.suite import CalibrationConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.pipeline.artefacts import Artefacts
    from trtbench.store import Artefact
    from trtbench.suite import Variant

OPTIONS = ("weights", "equalise", "rounding", "bias_correction")


def option_gains(artefacts: Artefacts, variant: Variant, *, precision: str) -> Artefact | None:
    """Count what the Q/DQ graph gets right in true arithmetic with all of a suite's options, and with one left out.

    Returns:
        The artefact with the facts `total`, `float` (what the float graph gets right), `all` and `without` (by
        option), each of them `correct` and `logits_mse` against the float graph; None where no option is on.
    """
    config, plain = artefacts.suite.calibration, CalibrationConfig()
    chosen = [name for name in OPTIONS if getattr(config, name) != getattr(plain, name)]
    if not chosen:
        return None
    graphs = {"float": artefacts.graph(variant), "all": artefacts.quantized_graph(variant, precision=precision)}
    for name in chosen:
        other = artefacts.without(name)
        graphs[name] = other.quantized_graph(variant, precision=precision)
    inputs = {
        "graphs": {name: graph.sha256 for name, graph in graphs.items()},
        "validation": artefacts.dataset.validation.sha256,
        "preprocessing": artefacts.dataset.preprocessing.fingerprint,
    }

    def count(folder: Path) -> Mapping[str, Any]:
        logits = {name: _logits(artefacts, graph.path("model.onnx")) for name, graph in graphs.items()}
        found = {name: _score(artefacts, values, logits["float"]) for name, values in logits.items()}
        facts = {
            "total": len(artefacts.dataset.validation),
            "float": found.pop("float"),
            "all": found.pop("all"),
            "without": found,
        }
        write_atomically(folder / "gains.json", json.dumps(facts, indent=1))
        return facts

    return artefacts.make("gains", f"{variant.name}/{precision}", inputs, count, content=("gains.json",))


def gain_notes(gains: Artefact | None) -> tuple[str, ...]:
    """Say in one sentence an option what it brought."""
    if gains is None:
        return ()
    facts = gains.facts
    return tuple(
        f"calibration.{name}: {facts['all']['correct']} of {facts['total']} validation images right, "
        f"{without['correct']} without it, {facts['float']['correct']} in FP32; squared error of the logits "
        f"{facts['all']['logits_mse']:.3g}, {without['logits_mse']:.3g} without it"
        for name, without in facts["without"].items()
    )


def _logits(artefacts: Artefacts, graph: Path) -> Any:
    import onnx

    from trtbench.data import batches
    from trtbench.graph.reference import run_reference_batches

    dataset, size = artefacts.dataset, artefacts.suite.calibration.batch_size
    inputs = ({"input": one} for one in batches(dataset.validation.images, dataset.preprocessing, size=size))
    return np.concatenate([next(iter(found.values())) for found in run_reference_batches(onnx.load(graph), inputs)])


def _score(artefacts: Artefacts, logits: Any, reference: Any) -> dict[str, Any]:
    correct = int((logits.argmax(axis=1) == artefacts.dataset.validation.labels).sum())
    return {"correct": correct, "logits_mse": float(np.square(logits - reference).mean())}

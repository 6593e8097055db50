"""What a build must know of its ONNX graph, and what is refused before TensorRT's parser sees it.

A parser's error names a line of the parser; a graph of the wrong types raises none at all and becomes an engine of
another precision than its name says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.errors import EngineError, GraphError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from trtbench.engines.tensorrt.precision import PrecisionPlan

_TOLD_FINDINGS = 10
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What an ONNX graph holds.

    Args:
        path: the file.
        data: its bytes.
        convolutions: the names of its convolutions, in order.
        quantizers: how many Q and DQ nodes stand on activations; those on weights are folded into them.
        element_types: ONNX's names of the types of its weights and casts.
        weight_bytes: bytes of its initializers.
    """

    path: Path
    data: bytes
    convolutions: tuple[str, ...]
    quantizers: int
    element_types: frozenset[str]
    weight_bytes: int


def read_source(path: Path, plan: PrecisionPlan) -> Source:
    """Read an ONNX file and check that TensorRT can make of it what the plan says.

    Raises:
        EngineError: it cannot be read.
        GraphError: it breaks a rule of explicit quantization, or is not of the types that the precision needs.
    """
    import onnx

    try:
        data = path.read_bytes()
        proto = onnx.load_from_string(data)
    except Exception as error:  # onnx and protobuf raise many classes
        raise EngineError(f"graph {path}", expected="an ONNX file", got=str(error), cure="export it again") from error
    source = _source(path, data, proto)
    _refuse_types(source, plan)
    _refuse_findings(proto, name=path.name)
    return source


def _source(path: Path, data: bytes, proto: onnx.ModelProto) -> Source:
    from onnx import TensorProto, helper, numpy_helper

    from trtbench.graph.view import QUANTIZERS, attribute, node_name, view

    seen = view(proto)
    casts = [attribute(node, "to", TensorProto.UNDEFINED) for node in seen.nodes if node.op_type == "Cast"]
    types = {item.data_type for item in proto.graph.initializer} | set(casts)
    folded = {node.output[0] for node in seen.nodes if node.op_type in QUANTIZERS and node.input[0] in seen.constants}
    quantizers = [node for node in seen.nodes if node.op_type in QUANTIZERS]
    on_weights = [node for node in quantizers if {node.input[0], node.output[0]} & (folded | set(seen.constants))]
    return Source(
        path=path,
        data=data,
        convolutions=tuple(node_name(node) for node in seen.nodes if node.op_type in _CONVOLUTIONS),
        quantizers=len(quantizers) - len(on_weights),
        element_types=frozenset(helper.tensor_dtype_to_string(kind).removeprefix("TensorProto.") for kind in types),
        weight_bytes=sum(numpy_helper.to_array(item).nbytes for item in proto.graph.initializer),
    )


def _refuse_types(source: Source, plan: PrecisionPlan) -> None:
    what = f"precision {plan.precision!r} from {source.path.name}"
    if plan.element_type and plan.element_type not in source.element_types:
        cure = "convert the graph first: `trtbench build` does so"
        raise GraphError(what, expected=f"a graph with {plan.element_type} weights or casts", got="none", cure=cure)
    if plan.has_quantizers and not source.quantizers:
        cure = "quantize it first: `trtbench calibrate` inserts Q/DQ nodes"
        raise GraphError(what, expected="Q/DQ nodes on its activations", got="none", cure=cure)
    if source.quantizers and not plan.has_quantizers:
        got = f"{source.quantizers} Q/DQ nodes"
        cure = "ask for int8, or give the float graph" + ("; a calibrator is passed over" * plan.needs_calibrator)
        raise GraphError(what, expected="a graph without Q/DQ nodes", got=got, cure=cure)


def _refuse_findings(proto: onnx.ModelProto, *, name: str) -> None:
    from trtbench.graph.lint import RULES, lint

    # A user's own graph may break rules that cost speed only.
    if findings := [found for found in lint(proto) if RULES[found.rule].outcome != "slow"]:
        told = "; ".join(f"{found.node}: {found.message} ({found.rule})" for found in findings[:_TOLD_FINDINGS])
        raise GraphError(f"graph {name}", got=told, cure="mend the node, or export the model another way")

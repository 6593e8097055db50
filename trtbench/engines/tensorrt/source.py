"""From an ONNX file to TensorRT's network and its optimisation profiles, and what is refused on the way.

Much is refused before TensorRT's parser sees it: its errors name a line of the parser, and a graph of the wrong types
raises none at all and becomes an engine of another precision than its name says. What it refuses is told by node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.errors import EngineError, GraphError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx
    import tensorrt as trt

    from trtbench.engines.base import BuildOptions
    from trtbench.engines.tensorrt.precision import PrecisionPlan

    Triple = tuple[int, int, int]

_TOLD_FINDINGS = 10
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_TOLD_ERRORS = 10
_FP8 = "FLOAT8E4M3FN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What an ONNX graph holds.

    Args:
        quantizers: how many Q and DQ nodes stand on activations; those on weights are folded into them.
        element_types: ONNX's names of the types of its weights and casts.
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
    if plan.codes and not source.quantizers:
        cure = "quantize it first: `trtbench calibrate` inserts Q/DQ nodes"
        raise GraphError(what, expected="Q/DQ nodes on its activations", got="none", cure=cure)
    if source.quantizers and not plan.codes:
        got = f"{source.quantizers} Q/DQ nodes"
        cure = "ask for int8, or give the float graph" + ("; a calibrator is passed over" * plan.needs_calibrator)
        raise GraphError(what, expected="a graph without Q/DQ nodes", got=got, cure=cure)
    found = "fp8" if _FP8 in source.element_types else "int8"
    if plan.codes and plan.codes != found:
        raise GraphError(what, expected=f"codes of {plan.codes}", got=f"codes of {found}", cure=f"ask for {found}")


def _refuse_findings(proto: onnx.ModelProto, *, name: str) -> None:
    from trtbench.graph.lint import RULES, lint

    # A user's own graph may break rules that cost speed only.
    if findings := [found for found in lint(proto) if RULES[found.rule].outcome != "slow"]:
        told = "; ".join(f"{found.node}: {found.message} ({found.rule})" for found in findings[:_TOLD_FINDINGS])
        raise GraphError(f"graph {name}", got=told, cure="mend the node, or export the model another way")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedNetwork:
    """A network and the parser that owns its weights: both live until the build has ended."""

    network: trt.INetworkDefinition
    parser: trt.OnnxParser

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs by name; -1 stands for a free axis."""
        tensors = (self.network.get_input(index) for index in range(self.network.num_inputs))
        return {tensor.name: tuple(tensor.shape) for tensor in tensors}


def parse_network(
    builder: trt.Builder,
    config: trt.IBuilderConfig,
    source: Source,
    *,
    is_strongly_typed: bool,
    logger: trt.ILogger,
) -> ParsedNetwork:
    """Parse an ONNX graph.

    Raises:
        GraphError: TensorRT cannot read it; each fault with its node and operator.
    """
    import tensorrt as trt

    # Always by name: the bit of this flag differs between the majors.
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if is_strongly_typed else 0
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if hasattr(parser, "set_builder_config"):  # since 10.15
        parser.set_builder_config(config)
    if not parser.parse(source.data, path=str(source.path)):
        faults = [parser.get_error(index) for index in range(parser.num_errors)]
        told = "; ".join(_told(fault) for fault in faults[:_TOLD_ERRORS]) or "no reason given"
        cure = "mend the node, or export the model another way"
        raise GraphError(f"TensorRT cannot parse {source.path.name}", got=told, cure=cure)
    return ParsedNetwork(network=network, parser=parser)


def _told(fault: trt.ParserError) -> str:
    where = f"node {fault.node_name() or fault.node()} ({fault.node_operator() or 'unknown operator'})"
    said = fault.desc()
    if said == "false":  # all that it says of an operator it has no importer for
        said = "TensorRT's parser does not know this operator"
    return f"{where}: {said} [{fault.code().name}]"


def add_profiles(
    builder: trt.Builder, config: trt.IBuilderConfig, parsed: ParsedNetwork, options: BuildOptions
) -> tuple[dict[str, list[list[int]]], ...]:
    """Give the configuration one optimisation profile for each batch size, or one dynamic profile.

    Returns:
        For each profile the smallest, usual and largest shape of every input.

    Raises:
        GraphError: the graph's fixed batch is not what was asked for.
        EngineError: TensorRT refuses a profile.
    """
    inputs = parsed.inputs
    triples = tuple(_batches(options))
    _refuse_shapes(inputs, triples)
    profiles = tuple(
        {name: [[batch, *shape[1:]] for batch in triple] for name, shape in inputs.items()} for triple in triples
    )
    if any(shape[0] == -1 for shape in inputs.values()):
        for shapes in profiles:
            _add(config, _profile(builder, shapes))
    return profiles


def set_calibration_profile(
    builder: trt.Builder, config: trt.IBuilderConfig, parsed: ParsedNetwork, *, batch_size: int
) -> None:
    """Say at which shape a calibrator's batches run; TensorRT 10 takes the usual shape of this profile.

    Raises:
        GraphError: the graph's fixed batch is another one.
        EngineError: TensorRT refuses the profile.
    """
    inputs = parsed.inputs
    _refuse_shapes(inputs, ((batch_size,) * 3,))
    if all(shape[0] != -1 for shape in inputs.values()):
        return  # the network's own shape is the only one
    shapes = {name: [[batch_size, *shape[1:]]] * 3 for name, shape in inputs.items()}
    if not config.set_calibration_profile(_profile(builder, shapes)):
        raise EngineError("calibration profile", got="refused by TensorRT", cure="lower the calibration batch size")


def _batches(options: BuildOptions) -> Iterator[Triple]:
    if options.profile is not None:
        yield options.profile
        return
    for batch in options.batch_sizes:
        yield (batch, batch, batch)


def _refuse_shapes(inputs: dict[str, tuple[int, ...]], triples: tuple[Triple, ...]) -> None:
    for name, shape in inputs.items():
        asked = sorted({batch for triple in triples for batch in triple})
        if shape[0] != -1 and asked != [shape[0]]:
            got = ", ".join(map(str, asked))
            cure = "export it with a free batch axis, or ask for its batch size only"
            raise GraphError(f"input {name!r}: batch sizes", expected=str(shape[0]), got=got, cure=cure)


def _profile(builder: trt.Builder, shapes: dict[str, list[list[int]]]) -> trt.IOptimizationProfile:
    profile = builder.create_optimization_profile()
    for name, (smallest, usual, largest) in shapes.items():
        profile.set_shape(name, smallest, usual, largest)
    return profile


def _add(config: trt.IBuilderConfig, profile: trt.IOptimizationProfile) -> None:
    if not profile or config.add_optimization_profile(profile) < 0:
        raise EngineError("optimisation profile", got="refused by TensorRT", cure="check the batch sizes of the suite")

"""PyTorch to one ONNX file that computes the same logits, with the same bytes each time. Needs torch.

Nodes and tensors get names as a user knows the network: a layer with weights bears its module's path
(`layer1.0.conv1`), any other node the path and its operator (`layer1.0.Relu_1`). Exporters count tensors in orders of
their own, so these names also make the bytes of equal models equal, and let a list of layers to leave in float hold for
both exporters.
"""

from __future__ import annotations

import ast
import copy
import io
import warnings
from collections import Counter
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import shape_inference

from trtbench.disk import write_atomically
from trtbench.errors import GraphError
from trtbench.graph.reference import run_reference
from trtbench.graph.simplify import simplify
from trtbench.records import ExportRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from trtbench.suite import ExportConfig

INPUT = "input"
OUTPUT = "logits"
_IR_VERSION = 10  # the newest that every supported ONNX Runtime and TensorRT reads; onnx's own default is refused
# Below its first opset the dynamo exporter writes that one all the same; past its last, the other dumps its graph.
_OPSETS = {"dynamo": range(18, 25), "torchscript": range(13, 21)}
# Of the largest logit: sums taken in another order differ by the rounding of what is summed, so with its size. Fresh
# ResNets of 20 to 56 layers, whose logits reach 2,150, stay below 4e-7 of it, EfficientNet-B0 (2.5e-13) at 1.7e-6.
_TOLERANCE = 1e-4
_SHOWN = 3
_CHECKED_BATCHES = (2, 1)  # the largest first: tracing batch 1 would freeze it
# What the exporters say of themselves; nothing here concerns the model.
_KNOWN_WARNINGS = (
    (DeprecationWarning, r"You are using the legacy TorchScript-based ONNX export"),
    (DeprecationWarning, r"The feature will be removed\. Please remove usage of this function"),
    (DeprecationWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (UserWarning, r"Constant folding - Only steps=1 can be constant folded"),
    (Warning, r"Converting a tensor to a Python"),  # TracerWarning; a frozen batch would fail the comparison below
)
_SCOPES = "pkg.torch.onnx.name_scopes"  # written by the dynamo exporter: "['', 'layer1', 'layer1.0', 'relu_1']"


def export_onnx(
    model: nn.Module,
    path: Path,
    *,
    input_shape: tuple[int, ...],
    config: ExportConfig,
) -> ExportRecord:
    """Write a network as one ONNX file in the form of `simplify`, and prove that it computes PyTorch's logits.

    The file has one float32 input `input` (batch, *input_shape) and one output `logits` (batch, classes); `batch` is
    its only free dimension. Equal models give equal bytes, whichever process exports them.

    Args:
        model: a network that maps (N, *input_shape) to logits (N, classes); it is not changed.
        path: the file to write, atomically.
        input_shape: channels, height and width of one image.
        config: exporter and opset.

    Raises:
        GraphError: the model cannot be exported, answers by what else is in the batch, the graph is invalid, or its
            logits differ.
        StoreError: the file cannot be written.
    """
    _require_statistics(model)
    frozen = copy.deepcopy(model).cpu().eval()
    noise = np.random.default_rng(0).standard_normal((max(_CHECKED_BATCHES), *input_shape), dtype=np.float32)
    inputs = [noise[:size] for size in _CHECKED_BATCHES]
    expected = _logits(frozen, inputs)
    proto = _finished(_traced(frozen, inputs[0], config), opset=config.opset)
    error = _largest_error(proto, inputs, expected)
    write_atomically(path, proto.SerializeToString(deterministic=True))
    return ExportRecord(
        exporter=config.exporter,
        opset=config.opset,
        operators=dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
        max_abs_error=error,
        weight_bytes=sum(onnx.numpy_helper.to_array(item).nbytes for item in proto.graph.initializer),
    )


def _require_statistics(model: nn.Module) -> None:
    """Refuse a BatchNorm that takes its statistics from the batch: its answers depend on the other images there."""
    norms = {name: one for name, one in model.named_modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm)}  # noqa: SLF001  the one name for all of them
    if without := [name for name, one in norms.items() if one.running_mean is None]:
        raise GraphError(
            f"BatchNorm without running statistics: {', '.join(without[:_SHOWN])}",
            expected="track_running_stats=True: logits that depend on one image alone",
            got=f"{len(without)} of {len(norms)} that take theirs from the batch",
            cure="train it with track_running_stats=True, or use InstanceNorm or GroupNorm",
        )


def _logits(model: nn.Module, inputs: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        try:
            return [model(torch.from_numpy(batch)).numpy() for batch in inputs]
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise GraphError(
                f"{type(model).__name__} on float32 images of shape {inputs[0].shape}",
                expected="one tensor of logits (batch, classes)",
                got=" ".join(str(error).split()),
                cure="give the input shape the network was made for",
            ) from error


def _traced(model: nn.Module, batch: NDArray[np.float32], config: ExportConfig) -> onnx.ModelProto:
    opsets, other = _OPSETS[config.exporter], "torchscript" if config.exporter == "dynamo" else "dynamo"
    if config.opset not in opsets:
        raise GraphError(
            f"export.opset {config.opset}",
            expected=f"{opsets[0]} to {opsets[-1]} with the {config.exporter} exporter",
            cure=f"choose one of these, or set export.exporter to {other}",
        )
    trace = _trace_dynamo if config.exporter == "dynamo" else _trace_torchscript
    try:
        with _quiet():
            return trace(model, torch.from_numpy(batch), config.opset)
    except (RuntimeError, TypeError, ValueError) as error:
        raise GraphError(
            f"the {config.exporter} exporter on {type(model).__name__}",
            got=" ".join(str(error).split())[:500],
            cure=f"set export.exporter to {other}, or mend the network's forward",
        ) from error


def _trace_dynamo(model: nn.Module, batch: torch.Tensor, opset: int) -> onnx.ModelProto:
    program = torch.onnx.export(
        model,
        (batch,),
        dynamo=True,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    assert program is not None, "without a path the dynamo exporter returns its program"
    return program.model_proto


def _trace_torchscript(model: nn.Module, batch: torch.Tensor, opset: int) -> onnx.ModelProto:
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (batch,),
        file,  # type: ignore[arg-type]  # typed for paths, but this exporter writes to files in memory too
        dynamo=False,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        verbose=False,
    )
    return onnx.load_from_string(file.getvalue())


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for category, message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def _finished(traced: onnx.ModelProto, *, opset: int) -> onnx.ModelProto:
    """Return the small, named, checked graph whose bytes depend on the model alone."""
    proto = _stripped(rename(simplify(traced)))
    proto.ir_version = _IR_VERSION
    proto.producer_name = "trtbench"
    try:
        proto = shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise GraphError(
            "the exported graph is invalid",
            got=" ".join(str(error).split()),
            cure="try the other exporter",
        ) from error
    written = next(item.version for item in proto.opset_import if not item.domain)
    if written != opset:
        raise GraphError("the exported graph", expected=f"opset {opset}", got=f"{written}", cure="choose that opset")
    return proto


def _stripped(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what names source files, addresses and versions, so that equal models give equal bytes."""
    graph = proto.graph
    for field in ("producer_name", "producer_version", "domain", "doc_string", "metadata_props"):
        proto.ClearField(field)
    graph.name = "network"
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
    return proto


def _largest_error(
    proto: onnx.ModelProto, inputs: list[NDArray[np.float32]], expected: list[NDArray[np.float32]]
) -> float:
    """Compare the graph's logits, in ONNX Runtime without optimisation, with PyTorch's."""
    largest = 0.0
    for batch, logits in zip(inputs, expected, strict=True):
        got = run_reference(proto, {INPUT: batch})[OUTPUT]
        error = float(np.abs(got - logits).max()) if got.shape == logits.shape else float("inf")
        tolerance = _TOLERANCE * float(np.abs(logits).max())
        if not error <= tolerance:  # NaN is no agreement
            raise GraphError(
                f"logits of the exported graph at batch {len(batch)}",
                expected=f"PyTorch's, shape {logits.shape}, within {tolerance:.3g}",
                got=f"shape {got.shape}, largest difference {error:.3g}",
                cure="try the other exporter; training-mode layers and data-dependent branches do not export",
            )
        largest = max(largest, error)
    return largest


def rename(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with readable, stable names; its inputs and outputs keep theirs.

    A node's tensor is `<node>.out`, its constants are `<node>.<input as the standard names it>`, `W` and `B` of layers
    being `weight` and `bias`. A constant that several nodes read is named by the first of them.
    """
    named = deepcopy(proto)
    graph = named.graph
    fixed = {item.name for item in [*graph.input, *graph.output]}
    new = {name: name for name in [*fixed, ""]}
    stored = {item.name for item in graph.initializer}
    version = next(item.version for item in named.opset_import if not item.domain)
    for node, name in zip(graph.node, _unique(_wanted_name(node) for node in graph.node), strict=True):
        for tensor, slot in zip(node.input, _slots(node, version), strict=False):
            if tensor in stored:
                new.setdefault(tensor, f"{name}.{slot}")
        for index, tensor in enumerate(node.output):
            new.setdefault(tensor, f"{name}.out{index or ''}")
        node.name = name
        node.input[:] = [new[tensor] for tensor in node.input]
        node.output[:] = [new[tensor] for tensor in node.output]
    for item in graph.initializer:
        item.name = new[item.name]
    return named


def _wanted_name(node: onnx.NodeProto) -> str:
    """Return the module's path for a layer with weights, else the path and the operator."""
    weight = next((str(name) for name in node.input[1:2] if name.endswith(".weight")), None)
    if weight is not None:
        return weight.removesuffix(".weight")
    path = _module_path(node)
    if path and node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return path
    return f"{path}.{node.op_type}" if path else str(node.op_type)


def _module_path(node: onnx.NodeProto) -> str:
    for item in node.metadata_props:
        if item.key == _SCOPES:
            return str(ast.literal_eval(item.value)[-2])
    traced = node.name if node.name.startswith("/") else node.output[0]
    return _traced_path(traced) if traced.startswith("/") else ""


def _traced_path(name: str) -> str:
    """Return the module path in a TorchScript name: `/layer1/layer1.0/conv1/Conv` is `layer1.0.conv1`.

    A member of a container repeats the container's name, so that part of it is written once.
    """
    path: list[str] = []
    for part in name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)


def _unique(names: Iterator[str]) -> Iterator[str]:
    taken: set[str] = set()
    for name in names:
        candidate, count = name, 0
        while candidate in taken:
            count += 1
            candidate = f"{name}_{count}"
        taken.add(candidate)
        yield candidate


def _slots(node: onnx.NodeProto, version: int) -> list[str]:
    """Return the standard's names of a node's inputs; `weight` and `bias` where a layer has them."""
    if node.op_type in {"Conv", "ConvTranspose", "Gemm"}:
        return ["input", "weight", "bias"]
    named = [slot.name for slot in onnx.defs.get_schema(node.op_type, version, node.domain).inputs]
    # The last input of an operator like Concat may repeat.
    repeated = [f"{named[-1]}{index}" for index in range(len(named), len(node.input))]
    return named + repeated

"""A graph that comes as ONNX, without its PyTorch source: checked, and brought into the form of our own exports."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import onnx

from trtbench.errors import ConfigError, GraphError
from trtbench.graph.reference import run_reference
from trtbench.graph.simplify import simplify
from trtbench.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

INPUT = "input"
OUTPUT = "logits"
_CURE = "export it with one float32 input (batch, C, H, W), one output (batch, classes) and a free batch dimension"


def import_onnx(path: Path, target: Path, *, input_shape: tuple[int, int, int], num_classes: int) -> None:
    """Write a user's ONNX classifier to `target` as one file with input `input` and output `logits`.

    Args:
        path: the user's file; external data beside it is read.
        target: the file to write, atomically.
        input_shape: channels, height and width the data has.
        num_classes: how many classes the data has.

    Raises:
        ConfigError: it is no ONNX file, or its input or output does not fit the data.
        GraphError: it does not run.
    """
    proto = _loaded(path)
    inputs = _runtime_inputs(proto)
    if len(inputs) != 1 or len(proto.graph.output) != 1:
        got = f"{len(inputs)} inputs and {len(proto.graph.output)} outputs"
        raise ConfigError(f"model {path}", expected="one input and one output", got=got, cure=_CURE)
    _rename(proto.graph, inputs[0].name, INPUT)
    _rename(proto.graph, proto.graph.output[0].name, OUTPUT)
    proto = simplify(proto)
    _check_fit(proto, path, input_shape=input_shape, num_classes=num_classes)
    write_atomically(target, proto.SerializeToString(deterministic=True))


def graph_sha256(path: Path) -> str:
    """Return the sha256 (hex) of an ONNX file with the external data beside it.

    Raises:
        ConfigError: it is no ONNX file, or its data is missing.
    """
    return hashlib.sha256(_loaded(path).SerializeToString(deterministic=True)).hexdigest()


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except Exception as error:  # onnx and protobuf raise many classes
        got = " ".join(str(error).split())[:300]
        raise ConfigError(f"model {path}", expected="a valid ONNX file", got=got, cure=_CURE) from error
    return proto


def _runtime_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are no weights: older files list those too."""
    weights = {item.name for item in proto.graph.initializer}
    return [item for item in proto.graph.input if item.name not in weights]


def _check_fit(proto: onnx.ModelProto, path: Path, *, input_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run two images through the graph: shapes declared in a file may be absent or wrong."""
    images = np.zeros((2, *input_shape), dtype=np.float32)
    try:
        logits = run_reference(proto, {INPUT: images})[OUTPUT]
    except GraphError as error:
        expected = f"a graph that takes float32 {images.shape}"
        raise ConfigError(f"model {path}", expected=expected, got=error.got or str(error), cure=_CURE) from error
    if logits.shape != (2, num_classes):
        expected, got = f"logits of shape (2, {num_classes}) for two images", str(logits.shape)
        raise ConfigError(f"model {path}", expected=expected, got=got, cure="give the --data it was trained on")


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for item in (*graph.input, *graph.output, *graph.value_info):
        if item.name == old:
            item.name = new

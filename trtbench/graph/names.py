"""Names of nodes and tensors as a user knows the network: the module's path, not an exporter's counter. Pure.

A layer with weights bears its module's path (`layer1.0.conv1`), any other node the path and its operator
(`layer1.0.Relu_1`). Exporters count tensors in orders of their own, so these names also make the bytes of equal models
equal, and let a list of layers to leave in float hold for both exporters.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCOPES = "pkg.torch.onnx.name_scopes"  # written by the dynamo exporter: "['', 'layer1', 'layer1.0', 'relu_1']"


def rename(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with readable, stable names; its inputs and outputs keep theirs.

    A node's tensor is `<node>.out`, its constants are `<node>.<input as the standard names it>`, `W` and `B` of layers
    being `weight` and `bias`. A constant that several nodes read is named by the first of them.
    """
    named = onnx.ModelProto()
    named.CopyFrom(proto)
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

"""What the double's parser refuses: operators without importer, and custom ones, node by node. Pure.

It judges no Q/DQ pair, no type and no opset: of those NVIDIA's real parser is asked (tests/rtx), and the lint stands in
front of either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from trtbench.graph.view import WITHOUT_IMPORTER

if TYPE_CHECKING:
    from collections.abc import Iterator


_PLUGINS = frozenset({"DeformConv"})  # TensorRT 10 has a plugin for it, which is not loaded here


@dataclass(frozen=True, slots=True)
class Refusal:
    """One error of the parser."""

    code: str
    text: str
    node: int = -1
    name: str = ""
    operator: str = ""


def refusals(model: onnx.ModelProto) -> Iterator[Refusal]:
    """Check a whole model."""
    for place, node in enumerate(model.graph.node):
        if node.domain not in {"", "ai.onnx"}:
            text = 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
            yield Refusal("INVALID_NODE", text, node=place, name=node.name, operator=node.op_type)
        elif not supports(node.op_type):
            yield Refusal("UNSUPPORTED_NODE", "false", node=place, name=node.name, operator=node.op_type)


def supports(operator: str) -> bool:
    """Say whether the parser imports an operator of ONNX's."""
    return operator not in WITHOUT_IMPORTER | _PLUGINS and onnx.defs.has(operator)

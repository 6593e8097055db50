"""The graphs that trtbench makes of a network: one for each precision, from fresh weights and set ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import torch
from torch import nn

from trtbench.graph.export import export_onnx
from trtbench.graph.fp8 import insert_fp8, plan_fp8
from trtbench.graph.half import to_half
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.models import build_model
from trtbench.suite import ExportConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.graph.placement import QdqPlan

_RANGE = 4.0  # of every activation: what a builder makes of a graph does not hang on its scales


def network(name: str, *, size: int) -> nn.Module:
    """Return a network whose activations keep their size from layer to layer, as a trained one's do."""
    torch.manual_seed(0)
    made = build_model(name, num_classes=10)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1
    with torch.no_grad():
        made.train()(torch.randn(8, 3, size, size))
    return made.eval()


def fp8_graphs(proto: onnx.ModelProto) -> tuple[Mapping[str, onnx.ModelProto], QdqPlan]:
    """Return the FP8 graphs of a float graph, and where their pairs went."""
    plan = plan_fp8(proto)
    quantized = insert_fp8(proto, plan, dict.fromkeys(activation_tensors(plan), _RANGE))
    return {"fp8": quantized, "fp8+fp16": to_half(quantized, dtype="fp16").proto}, plan


def graphs(model: nn.Module, folder: Path, *, size: int) -> tuple[Mapping[str, onnx.ModelProto], QdqPlan]:
    """Return the graph of each precision, and where the Q/DQ pairs went; the float graph is left in `folder`."""
    path = folder / "model.onnx"
    export_onnx(model, path, input_shape=(3, size, size), config=ExportConfig(exporter="torchscript"))
    proto = onnx.load(path)
    plan = plan_qdq(proto)
    quantized = insert_qdq(proto, plan, dict.fromkeys(activation_tensors(plan), _RANGE))
    made = {
        "fp32": proto,
        "fp16": to_half(proto, dtype="fp16").proto,
        "bf16": to_half(proto, dtype="bf16").proto,
        "int8": quantized,
        "int8+fp16": to_half(quantized, dtype="fp16").proto,
    }
    return made, plan

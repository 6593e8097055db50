"""The CNNs: a zoo by name, checkpoints as users really have them, and what a network counts."""

from __future__ import annotations

from trtbench.models.checkpoints import LoadedModel, load_model, save_model
from trtbench.models.counts import conv_widths, count_macs, count_params
from trtbench.models.zoo import build_model, model_names, protected_layers

__all__ = [
    "LoadedModel",
    "build_model",
    "conv_widths",
    "count_macs",
    "count_params",
    "load_model",
    "model_names",
    "protected_layers",
    "save_model",
]

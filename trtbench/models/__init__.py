"""The CNNs: a zoo by name, checkpoints as users really have them, and what a network counts."""

from __future__ import annotations

from trtbench.models.checkpoints import LoadedModel as LoadedModel
from trtbench.models.checkpoints import load_model as load_model
from trtbench.models.checkpoints import save_model as save_model
from trtbench.models.counts import conv_widths as conv_widths
from trtbench.models.counts import count_macs as count_macs
from trtbench.models.counts import count_params as count_params
from trtbench.models.zoo import build_model as build_model
from trtbench.models.zoo import model_names as model_names
from trtbench.models.zoo import protected_layers as protected_layers

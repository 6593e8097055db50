"""Making a network smaller; every method is one module."""

from __future__ import annotations

from trtbench.compress.channels import PrunedModel as PrunedModel
from trtbench.compress.channels import prune_channels as prune_channels

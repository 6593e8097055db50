"""Making a network smaller; every method is one module."""

from __future__ import annotations

from trtbench.compress.channels import ChannelsRecord, PrunedModel, prune_channels

__all__ = ["ChannelsRecord", "PrunedModel", "prune_channels"]

"""The smallest network with all that the CIFAR ResNets have: `model.name: tiny_nets:resnet8`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.models.zoo import cifar_resnet

if TYPE_CHECKING:
    from torch import nn


def resnet8(*, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build three stages of one block: nine convolutions, two of them in shortcuts."""
    return cifar_resnet(8, shortcut="B", num_classes=num_classes, in_channels=in_channels)

"""Residual networks of basic blocks, for 32x32 images and for ImageNet; their weights bear torchvision's names.

He et al., "Deep Residual Learning for Image Recognition" (2015): section 4.2 for the CIFAR networks and the two
parameter-free or projecting shortcuts (options A and B), table 1 for ResNet-18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

Shortcut = Literal["A", "B"]
Stem = Literal["3x3", "3x3-pool", "7x7-pool"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a projecting shortcut (option B): identity, or 1x1 convolution and BatchNorm."""

    def __init__(self, in_width: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = self._shortcut(in_width, width, stride=stride)

    def _shortcut(self, in_width: int, width: int, *, stride: int) -> nn.Module | None:
        if stride == 1 and in_width == width:
            return None
        return nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def residual(self, x: Tensor) -> Tensor:
        """Return what the block adds to its shortcut, before the last ReLU."""
        out: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(self.residual(x) + shortcut)
        return out


class PaddedBlock(BasicBlock):
    """Two 3x3 convolutions and a shortcut without parameters (option A): subsample, then pad both sides with zeros."""

    def _shortcut(self, in_width: int, width: int, *, stride: int) -> nn.Module | None:  # noqa: ARG002  same seam
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, width, H / stride, W / stride)."""
        out: Tensor = self.relu(self.residual(x) + self._padded(x))
        return out

    def _padded(self, x: Tensor) -> Tensor:
        # The widths are read off the convolutions: they follow a pruner and a rebuild, and stay constants in a trace.
        missing = self.conv2.out_channels - self.conv1.in_channels
        stride = int(self.conv1.stride[0])
        if stride > 1:
            x = x[:, :, ::stride, ::stride]
        return F.pad(x, (0, 0, 0, 0, missing // 2, missing - missing // 2)) if missing else x


class ResNet(nn.Module):
    """A stem, one stage of basic blocks per width (the first at stride 1, the others at 2), average pool, classifier.

    Args:
        blocks: blocks per stage.
        widths: channels per stage; the stem has as many as the first stage.
        stem: "3x3" at stride 1, "3x3-pool" with a 3x3 max-pool at stride 2 behind it, "7x7-pool" (ImageNet) at stride 2
            with the same pool.
        shortcut: option A or B of the paper.
        num_classes: logits.
        in_channels: channels of the image.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        widths: Sequence[int],
        stem: Stem,
        shortcut: Shortcut,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if stem == "7x7-pool" else (3, 1)
        self.conv1 = nn.Conv2d(in_channels, widths[0], kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "3x3" else nn.MaxPool2d(3, 2, padding=1)
        self.stages = tuple(f"layer{number}" for number in range(1, len(widths) + 1))
        in_widths = (widths[0], *widths)
        for number, name in enumerate(self.stages):
            stage = _stage(
                in_widths[number],
                widths[number],
                count=blocks[number],
                stride=1 if number == 0 else 2,
                block=PaddedBlock if shortcut == "A" else BasicBlock,
            )
            self.add_module(name, stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        out = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self.stages:
            out = self.get_submodule(name)(out)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(out), 1))
        return logits


def _stage(in_width: int, width: int, *, count: int, stride: int, block: type[BasicBlock]) -> nn.Sequential:
    first = block(in_width, width, stride=stride)
    return nn.Sequential(first, *(block(width, width, stride=1) for _ in range(count - 1)))


def initialise(model: nn.Module) -> None:
    """Draw convolutions from Kaiming's normal distribution (fan out, He et al. 2015) with torch's global generator."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def cifar_resnet(depth: int, *, shortcut: Shortcut, num_classes: int, in_channels: int) -> ResNet:
    """Build the CIFAR network of 6n + 2 layers: three stages of n blocks with 16, 32 and 64 channels."""
    count = (depth - 2) // 6
    return ResNet(
        blocks=(count,) * 3,
        widths=(16, 32, 64),
        stem="3x3",
        shortcut=shortcut,
        num_classes=num_classes,
        in_channels=in_channels,
    )


def resnet18(*, stem: Stem, num_classes: int, in_channels: int) -> ResNet:
    """Build ResNet-18: four stages of two blocks with 64 to 512 channels."""
    return ResNet(
        blocks=(2, 2, 2, 2),
        widths=(64, 128, 256, 512),
        stem=stem,
        shortcut="B",
        num_classes=num_classes,
        in_channels=in_channels,
    )


def protected_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the layers whose output channels no pruner may remove: the residual stream of option A.

    Zero-padding puts channel i of one stage at i + pad in the next. A dependency graph sees an element-wise operation
    there and would couple channel i with channel i. Hand these layers to the pruner as `ignored_layers`; the inner
    channels of each block remain free. Empty for every other network.
    """
    blocks = [module for module in model.modules() if isinstance(module, PaddedBlock)]
    if not blocks:
        return ()
    stem = [module for module in model.modules() if isinstance(module, ResNet)]
    return (*(module.conv1 for module in stem), *(block.conv2 for block in blocks))

"""Small convolutional networks drawn at random, each valid by construction (as NNSmith generates models)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZE = 16
_CHANNELS = (4, 6, 8, 12, 16)
_SMALLEST = 4  # what may still be halved
_HALF = 0.5
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.Hardswish,
    nn.Mish,
    nn.GELU,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.Identity,
)


class Gate(nn.Module):
    """Squeeze and excitation: each channel times a number made of all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool, self.squeeze = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate: torch.Tensor = torch.sigmoid(self.squeeze(self.pool(x)))
        return x * gate


class Joined(nn.Module):
    """Two branches of equal shape, added or put side by side."""

    def __init__(self, first: nn.Module, second: nn.Module, *, adds: bool) -> None:
        super().__init__()
        self.first, self.second, self.adds = first, second, adds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.first(x), self.second(x)
        return first + second if self.adds else torch.cat((first, second), dim=1)


def random_network(seed: int, *, widths: Sequence[int] = _CHANNELS) -> nn.Module:
    """Return a network of 2 to 6 blocks of these widths that maps (N, 3, SIZE, SIZE) to 5 logits."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    channels, size, blocks = 3, SIZE, list[nn.Module]()
    for _ in range(random.integers(2, 7)):
        block, channels, size = _block(random, channels, size, widths)
        blocks.append(block)
    network = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1
    with torch.no_grad():
        network.train()(torch.randn(8, 3, SIZE, SIZE))
    return network.eval()


def _block(random: np.random.Generator, channels: int, size: int, widths: Sequence[int]) -> tuple[nn.Module, int, int]:
    """Return a block for this many channels and this size, and what comes out of it."""
    wide = int(random.choice(widths))
    choices: dict[str, Callable[[], tuple[nn.Module, int, int]]] = {
        "conv": lambda: (_conv(random, channels, wide), wide, size),
        "depthwise": lambda: (_conv(random, channels, channels, groups=channels), channels, size),
        "gate": lambda: (Gate(channels), channels, size),
        "residual": lambda: (_residual(random, channels), channels, size),
        "concat": lambda: (_concat(random, channels, wide), 2 * wide, size),
    }
    if size >= _SMALLEST:
        choices["pool"] = lambda: (_POOLS[random.integers(len(_POOLS))](2), channels, size // 2)
        choices["stride"] = lambda: (_conv(random, channels, wide, stride=2), wide, size // 2)
    return list(choices.values())[random.integers(len(choices))]()


def _residual(random: np.random.Generator, channels: int) -> nn.Module:
    shortcut = nn.Identity() if random.random() < _HALF else _conv(random, channels, channels)
    return Joined(_conv(random, channels, channels), shortcut, adds=True)


def _concat(random: np.random.Generator, channels: int, wide: int) -> nn.Module:
    return Joined(_conv(random, channels, wide), _conv(random, channels, wide), adds=False)


def _conv(random: np.random.Generator, given: int, made: int, *, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return a convolution that keeps the size (or halves it), with or without BatchNorm and an activation."""
    kernel, dilation = int(random.choice((1, 3, 5))), int(random.choice((1, 1, 2)))
    padding = dilation * (kernel - 1) // 2
    has_norm = bool(random.random() < _HALF)
    layers: list[nn.Module] = [
        nn.Conv2d(given, made, kernel, stride, padding, dilation, groups=groups, bias=not has_norm)
    ]
    if has_norm:
        layers.append(nn.BatchNorm2d(made))
    layers.append(_ACTIVATIONS[random.integers(len(_ACTIVATIONS))]())
    return nn.Sequential(*layers)

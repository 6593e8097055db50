"""MobileNetV2 from torchvision's building blocks, with the strides of ImageNet or those used on 32x32 images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchvision.models import MobileNetV2

if TYPE_CHECKING:
    from torch import nn

# (expansion, channels, repeats, stride) per stage: Sandler et al., "MobileNetV2" (2018), table 2.
_IMAGENET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# The field's table for 32x32: two halvings fewer, so that 4x4 pixels and not one reach the last stage.
_CIFAR = ((1, 16, 1, 1), (6, 24, 2, 1), *_IMAGENET[2:])


def mobilenet_v2(*, num_classes: int) -> nn.Module:
    """Build MobileNetV2 with ImageNet's strides: five halvings, so that one pixel is left of 32x32."""
    model: nn.Module = MobileNetV2(num_classes=num_classes, inverted_residual_setting=[list(row) for row in _IMAGENET])
    return model


def mobilenet_v2_cifar(*, num_classes: int) -> nn.Module:
    """Build MobileNetV2 with stride 1 in the first convolution and in the first stage that halves."""
    model: nn.Module = MobileNetV2(num_classes=num_classes, inverted_residual_setting=[list(row) for row in _CIFAR])
    stem = model.get_submodule("features.0.0")
    stem.stride = (1, 1)  # type: ignore[assignment]  # it is a convolution
    return model

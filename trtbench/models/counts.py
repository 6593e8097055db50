"""What a network counts: parameters, multiply-accumulates, channels per convolution."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.utils.hooks import RemovableHandle

# torch keeps the base of all convolutions private; these are its public leaves.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def count_params(model: nn.Module) -> int:
    """Count the parameters, shared ones once; the running statistics of BatchNorm are buffers and not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


def conv_widths(model: nn.Module) -> dict[str, int]:
    """Return the output channels of each convolution by its name, in the order of the modules."""
    return {name: module.out_channels for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)}


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of the convolutions and linear layers for one image.

    One forward pass of zeros in eval mode; the mode of every module is put back. A layer that runs twice counts twice;
    biases, BatchNorm, additions and whatever is neither a convolution nor a linear layer count nothing.

    Args:
        model: a network on any device.
        input_shape: channels, height, width.

    Raises:
        ConfigError: the network does not take images of this shape.
    """
    macs = 0

    def add(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal macs
        weight: Tensor = module.weight  # type: ignore[assignment]  # only convolutions and linear layers come here
        macs += output.numel() * weight[0].numel()

    layers = [module for module in model.modules() if isinstance(module, WEIGHTED)]
    with hooked(*(layer.register_forward_hook(add) for layer in layers)), evaluating(model):
        run_zeros(model, input_shape)
    return macs


def run_zeros(model: nn.Module, input_shape: tuple[int, ...]) -> Any:
    """Return what the network makes of one image of zeros, where its weights are and in their precision.

    Raises:
        ConfigError: the network does not take images of this shape.
    """
    weight = next(model.parameters(), torch.empty(0))
    images = torch.zeros((1, *input_shape), dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            return model(images)
    except Exception as error:  # a user's own forward raises anything
        raise ConfigError(
            f"{type(model).__name__} with images of {' x '.join(map(str, input_shape))}",
            expected="a forward pass",
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            cure="give images of the channels and the size it takes; one of several inputs goes as ONNX",
        ) from error


@contextlib.contextmanager
def hooked(*handles: RemovableHandle) -> Iterator[None]:
    """Take hooks off their layers again afterwards."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into eval mode for a while; afterwards each module is back in its own mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode

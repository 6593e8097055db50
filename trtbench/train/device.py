"""The device a network learns on, by name."""

from __future__ import annotations

import torch

from trtbench.errors import CapabilityError, ConfigError


def as_device(name: str | torch.device) -> torch.device:
    """Return the device called `name`: `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigError: no such name.
        CapabilityError: a CUDA device that is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _unknown(name) from error
    if device.type not in ("cpu", "cuda"):
        raise _unknown(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise CapabilityError(
            f"device {str(name)!r}",
            expected="a CUDA device that PyTorch sees",
            got=f"{count} of them",
            cure="name another device, or see `trtbench gpu-info`",
        )
    return device


def _unknown(name: str | torch.device) -> ConfigError:
    return ConfigError(f"device {str(name)!r}", expected="cpu, cuda or cuda:N", cure="name one of these")

"""Random numbers that depend on (seed, epoch) alone, so that an epoch is the same whether or not the run was cut."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def epoch_generator(seed: int, epoch: int, *, stream: str) -> torch.Generator:
    """Return a CPU generator for one epoch; streams of different names are independent."""
    return torch.Generator().manual_seed(_epoch_seed(seed, epoch, stream=stream))


@contextlib.contextmanager
def seeded_layers(seed: int, epoch: int, *, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for one epoch, and leave them as they were afterwards.

    Dropout and stochastic depth draw from nowhere else.
    """
    is_cuda = device.type == "cuda"
    value = _epoch_seed(seed, epoch, stream="layers")
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        # Not torch.manual_seed: it would reach every CUDA device, and fork_rng only gives one back.
        torch.default_generator.manual_seed(value)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(value)
        yield


def _epoch_seed(seed: int, epoch: int, *, stream: str) -> int:
    digest = hashlib.sha256(f"{stream} {seed} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1  # torch takes 63 bits everywhere

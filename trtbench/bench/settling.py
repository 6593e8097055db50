"""Whether the samples of one process settled: what they say in the end is what they said all along.

Pure. The rule of TensorRT-Model-Connect's performance matrix (benchmarks/performance/README.md): cut the samples in ten
blocks; the halves agree within 5 %, and at least 8 blocks lie within 5 % of the median of all ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCKS = 10
ENOUGH = 0.8
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """`halves` is the larger median of the two halves over the smaller; `within` is the share of the blocks."""

    halves: float
    within: float

    @property
    def is_settled(self) -> bool:
        """Whether both rules hold."""
        return self.halves <= 1 + TOLERANCE and self.within >= ENOUGH


def settling(samples_ns: NDArray[np.int64]) -> Settling:
    """Look at the samples (n,) of one process in the order they were taken; fewer than ten are as many blocks.

    The middle one of an odd number of samples belongs to neither half. The median of a block of few samples is noisy
    by itself; that too is a reason not to trust it.
    """
    half = samples_ns.size // 2
    low, high = sorted((float(np.median(samples_ns[:half])), float(np.median(samples_ns[-half:]))))
    medians = np.array([np.median(block) for block in np.array_split(samples_ns, min(BLOCKS, samples_ns.size))])
    within = np.abs(medians / np.median(medians) - 1) <= TOLERANCE
    return Settling(halves=high / low, within=float(within.mean()))


def is_settled(samples_ns: NDArray[np.int64]) -> bool:
    """Say whether the samples of one process settled."""
    return settling(samples_ns).is_settled

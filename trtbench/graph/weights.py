"""How a weight becomes int8: its scale for each output channel, and its codes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WeightClip = Literal["absmax", "mse"]

LEVELS = 127  # the largest int8 code whose negative is one too
# A dead channel's weights are all 0, and so would be its scale, which TensorRT refuses. The smallest positive FP16
# number stays positive in every type that scales may be converted to, and rounds nothing that matters.
SMALLEST_SCALE = 2.0**-24
_SHARES = np.linspace(1.0, 0.5, 101)  # of the largest magnitude; below half of it 8 bits lose more than they win


def weight_scales(weight: NDArray[np.float32], *, axis: int, clip: WeightClip = "absmax") -> NDArray[np.float32]:
    """Return the scale of each slice of a weight along `axis`, float32 (channels,), never below 2^-24.

    `absmax` represents the largest magnitude, which is code 127; `mse` is the share of it, from a half on, whose codes
    have the least squared error, so that a few outliers do not coarsen all steps.
    """
    rows = as_rows(weight, axis=axis)
    scales = np.abs(rows).max(axis=1) / LEVELS
    if clip == "mse":
        errors = np.stack([_squared_error(rows, scales * share) for share in _SHARES])
        scales = scales * _SHARES[errors.argmin(axis=0)]
    safe: NDArray[np.float32] = np.maximum(scales, SMALLEST_SCALE).astype(np.float32)
    return safe


def as_rows(weight: NDArray[np.float32], *, axis: int) -> NDArray[np.float32]:
    """Return the weight as (channels along `axis`, the rest)."""
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def rounded(rows: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what QuantizeLinear and DequantizeLinear make of each row: nearest code, ties to even, in [-128, 127]."""
    steps = np.maximum(scales, SMALLEST_SCALE)[:, None].astype(np.float32)
    codes: NDArray[np.float32] = np.clip(np.rint(rows / steps), -LEVELS - 1, LEVELS) * steps
    return codes


def _squared_error(rows: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    error: NDArray[np.float32] = np.square(rows - rounded(rows, scales)).sum(axis=1)
    return error

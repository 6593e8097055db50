"""How near a quantized network's logits come to the float one's, and which of several comes nearest. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Name = TypeVar("Name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Logits beside the float network's, without labels.

    `snr_db` is of logits less their mean over the classes, which no softmax sees; None where there is no noise.
    `agreement` is the share of the images that get the same class.
    """

    snr_db: float | None
    agreement: float
    images: int


def judge(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> Judgement:
    """Compare logits (images, classes) with the float network's."""
    same = logits.argmax(axis=1) == reference.argmax(axis=1)
    snr_db = signal_to_noise_db(*powers(_centred(reference), _centred(logits)))
    return Judgement(snr_db=snr_db, agreement=float(same.mean()), images=len(logits))


def nearest(found: Mapping[Name, Judgement]) -> Name:
    """Return whose logits have the least noise among those that agree on as many images as the best, but one.

    An image is what chance decides; several are not, whatever the noise is.
    """
    most = max(one.agreement for one in found.values())
    able = {name: one for name, one in found.items() if (most - one.agreement) * one.images < 1.5}  # noqa: PLR2004
    return max(able, key=lambda name: math.inf if (snr_db := able[name].snr_db) is None else snr_db)


def lost_and_gained(
    logits: NDArray[np.float32], reference: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[int, int]:
    """Count the images that only the float network gets right, and those that only these logits do."""
    right, was_right = (one.argmax(axis=1) == labels for one in (logits, reference))
    return int((was_right & ~right).sum()), int((right & ~was_right).sum())


def powers(reference: NDArray[np.float32], values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the sums of squares of the reference and of the difference; sums over batches add up."""
    wide = reference.astype(np.float64)
    return float(np.square(wide).sum()), float(np.square(values - wide).sum())


def signal_to_noise_db(signal: float, noise: float) -> float | None:
    """Return 10 log10(signal / noise), of powers; None without noise, and without a signal."""
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def noise_share(snr_db: float | None) -> float:
    """Return the power of the noise over that of the signal."""
    return 0.0 if snr_db is None else float(10 ** (-snr_db / 10))


def _centred(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = logits - logits.mean(axis=1, keepdims=True)
    return centred

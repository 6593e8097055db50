"""Accuracy as counts: what an engine got right, and what that proves against the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.statistics import drop_upper_bound, mcnemar_exact, wilson_interval
from trtbench.errors import EngineError
from trtbench.records import AccuracyRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOP = 5


def score(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    reference: NDArray[np.float32] | None = None,
) -> AccuracyRecord:
    """Count what is right, and compare with the reference image by image.

    Args:
        logits: float32 (images, classes) of the engine; ties go to the lowest class.
        labels: int64 (images,).
        reference: logits of the network every drop is measured against.

    Raises:
        EngineError: the logits are not finite, or not one row an image.
    """
    if logits.shape[:1] != labels.shape:
        raise EngineError("logits", expected=f"one row for each of {len(labels)} images", got=str(logits.shape))
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits)).any(axis=1).sum())
        raise EngineError("logits", expected="finite numbers", got=f"NaN or infinity on {bad} of {len(labels)} images")
    right = logits.argmax(axis=1) == labels
    correct, total, classes = int(right.sum()), len(labels), logits.shape[1]
    paired: dict[str, Any] = {}
    if reference is not None:
        was_right = reference.argmax(axis=1) == labels
        lost, gained = int((was_right & ~right).sum()), int((~was_right & right).sum())
        paired = {
            "drop_pp": 100 * (lost - gained) / total,
            "drop_upper_pp": 100 * drop_upper_bound(lost, gained, total),
            "mcnemar_p": mcnemar_exact(lost, gained),
            "agreement": float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        }
    return AccuracyRecord(
        correct=correct,
        total=total,
        top1=correct / total,
        top5=_top5(logits, labels) if classes > _TOP else None,
        ci95=wilson_interval(correct, total),
        per_class=tuple(np.bincount(labels[right], minlength=classes).tolist()),
        **paired,
    )


def _top5(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    best = np.argpartition(-logits, _TOP - 1, axis=1)[:, :_TOP]
    return float((best == labels[:, None]).any(axis=1).mean())

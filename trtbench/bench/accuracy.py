"""Accuracy as counts: what an engine got right, and what that proves against the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.paired_drop import drop_upper_bound
from trtbench.bench.statistics import (
    expected_calibration_error,
    is_chance_level,
    mcnemar_exact,
    wilson_interval,
)
from trtbench.errors import EngineError
from trtbench.rows import AccuracyRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_TOP = 5


def score(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    reference: NDArray[np.float32] | None = None,
    names: Sequence[str] = (),
) -> AccuracyRecord:
    """Count what is right, and compare with the reference image by image.

    What guessing would reach is counted like any other (`is_chance`): no such row is chosen, and a study may show it.

    Args:
        logits: float32 (images, classes) of the engine; ties go to the lowest class.
        labels: int64 (images,).
        reference: logits of the network every drop is measured against.
        names: of the classes; without them they are told by their numbers.

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
            "lost": lost,
            "gained": gained,
            "drop_pp": 100 * (lost - gained) / total,
            "drop_upper_pp": 100 * drop_upper_bound(lost, gained, total),
            "mcnemar_p": mcnemar_exact(lost, gained),
            "agreement": float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
            **_by_class(labels, lost=was_right & ~right, gained=~was_right & right, classes=classes, names=names),
        }
    return AccuracyRecord(
        correct=correct,
        total=total,
        top1=correct / total,
        top5=_top5(logits, labels) if classes > _TOP else None,
        ci95=wilson_interval(correct, total),
        per_class=tuple(np.bincount(labels[right], minlength=classes).tolist()),
        class_totals=tuple(np.bincount(labels, minlength=classes).tolist()),
        loss=cross_entropy(logits, labels),
        ece=expected_calibration_error(_confidence(logits), right),
        is_chance=is_chance_level(correct, total, classes=classes),
        **paired,
    )


def _by_class(
    labels: NDArray[np.int64],
    *,
    lost: NDArray[np.bool_],
    gained: NDArray[np.bool_],
    classes: int,
    names: Sequence[str],
) -> dict[str, Any]:
    """Return the points each class lost of its own images, and the name of the one that lost most."""
    totals = np.bincount(labels, minlength=classes)
    net = np.bincount(labels[lost], minlength=classes) - np.bincount(labels[gained], minlength=classes)
    drops = 100 * net / np.maximum(totals, 1)
    worst = int(drops.argmax())
    name = names[worst] if worst < len(names) else str(worst)
    return {"class_drops_pp": tuple(drops.tolist()), "worst_class": name if drops[worst] > 0 else None}


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean over the images of -log softmax at the label, in nats."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean())


def _confidence(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the largest softmax probability of each image."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    confidence: NDArray[np.float64] = 1 / np.exp(shifted).sum(axis=1)
    return confidence


def _top5(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    best = np.argpartition(-logits, _TOP - 1, axis=1)[:, :_TOP]
    return float((best == labels[:, None]).any(axis=1).mean())

"""Accuracy as counts: what an engine got right, and what that proves against the reference; fidelity without labels."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.paired_drop import bootstrap_uppers, drop_upper_bound
from trtbench.bench.statistics import (
    expected_calibration_error,
    is_chance_level,
    mcnemar_exact,
    wilson_interval,
)
from trtbench.calibrate.exclusion import channel_groups, channel_powers, signal_to_noise_db
from trtbench.errors import EngineError
from trtbench.graph.reference import parted
from trtbench.rows import AccuracyRecord, FidelityRecord, OutputFidelity, ScoreRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from trtbench.bench.records import Images, Score
    from trtbench.records import Output

_Ratio = tuple[float, float]  # in decibels, with its standard error
_TOP = 5
_TOGETHER = 100  # engines that are decided on together, at most, with a bound of their own


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


def judge_of(images: Images) -> Callable[[NDArray[np.float32]], AccuracyRecord | FidelityRecord]:
    """Return what judges the logits of images: by their labels, or without these beside the float network."""
    if images.outputs:
        assert images.reference is not None, "outputs are known where there is a float network"
        return partial(fidelity, reference=images.reference, outputs=images.outputs, own=images.score)
    return partial(score, labels=images.labels, reference=images.reference, names=images.classes)


def fidelity(
    found: NDArray[np.float32],
    reference: NDArray[np.float32],
    outputs: Sequence[Output],
    *,
    own: Score | None = None,
) -> FidelityRecord:
    """Compare what an engine makes of images with what the float network makes of them, output by output.

    Args:
        found: float32 (images, numbers), every output flattened, side by side.
        reference: likewise, of the float network.
        outputs: the outputs, in their order.
        own: the suite's own score, by which both are compared besides.

    Raises:
        EngineError: the numbers are not finite, or not those of these outputs.
    """
    if found.shape != reference.shape:
        raise EngineError("outputs", expected=f"numbers of shape {reference.shape}", got=str(found.shape))
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).any(axis=1).sum())
        raise EngineError("outputs", expected="finite numbers", got=f"NaN or infinity on {bad} of {len(found)} images")
    mine, theirs = parted(found, outputs), parted(reference, outputs)
    compared = [_compared(one, mine[one.name], theirs[one.name]) for one in outputs]
    snr_db, snr_se_db = min((ratio for _, ratio in compared if ratio is not None), default=(None, None))
    return FidelityRecord(
        images=len(found),
        outputs=tuple(one for one, _ in compared),
        snr_db=snr_db,
        snr_se_db=snr_se_db,
        score=None if own is None else scored(own(found), own(reference)),
    )


def _compared(
    output: Output, found: NDArray[np.float32], wanted: NDArray[np.float32]
) -> tuple[OutputFidelity, _Ratio | None]:
    """Return what an output (images, ...) is like, and its ratio, or that of its channels where that is less."""
    signal, noise = channel_powers(wanted, found)
    groups = channel_groups(signal.sum(axis=0))
    whole = _ratio(signal, noise)
    by_scale = {_spans(one): _ratio(signal[:, one], noise[:, one]) for one in groups}
    worst = min(((ratio, name) for name, ratio in by_scale.items() if ratio is not None), default=None)
    record = OutputFidelity(
        name=output.name,
        snr_db=whole and whole[0],
        max_error=float(np.abs(found.astype(np.float64) - wanted).max()),
        agreement=float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean()) if output.has_classes else None,
        channels=worst[1] if worst else "",
        channels_snr_db=worst[0][0] if worst else None,
    )
    return record, min((one for one in (whole, worst and worst[0]) if one), default=None)


def _ratio(signal: NDArray[np.float64], noise: NDArray[np.float64]) -> _Ratio | None:
    """Return the ratio of powers (images, channels) in decibels, and its standard error; None without either power."""
    snr_db = signal_to_noise_db(float(signal.sum()), float(noise.sum()))
    return None if snr_db is None else (snr_db, _standard_error_db(signal.sum(axis=1), noise.sum(axis=1)))


def _spans(channels: NDArray[np.intp]) -> str:
    """Return whole numbers as in "4-7,9"."""
    runs = np.split(ordered := np.sort(channels), np.flatnonzero(np.diff(ordered) > 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def scored(found: NDArray[np.float64], reference: NDArray[np.float64]) -> ScoreRecord:
    """Compare the scores of images by an engine with those by the float network, image by image."""
    drops = reference - found
    uppers = bootstrap_uppers(drops, engines=_TOGETHER)
    return ScoreRecord(mean=float(found.mean()), drop=float(drops.mean()), drop_uppers=uppers)


def _standard_error_db(signal: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """Return the standard error of a ratio of sums over images, in decibels (Cochran 1977, section 2.11)."""
    count, ratio = len(signal), noise.sum() / signal.sum()
    spread = np.sqrt(np.square(noise - ratio * signal).sum() * count / max(count - 1, 1))
    return float(10 / math.log(10) * spread / noise.sum())


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
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    confidence: NDArray[np.float64] = 1 / np.exp(shifted).sum(axis=1)
    return confidence


def _top5(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    best = np.argpartition(-logits, _TOP - 1, axis=1)[:, :_TOP]
    return float((best == labels[:, None]).any(axis=1).mean())

"""The same training by several seeds, and how far apart they end: the spread that a single run hides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from trtbench.errors import ConfigError
from trtbench.progress import Listener, nobody
from trtbench.report.units import percent
from trtbench.steps import step, training

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbench.suite import Suite

_CONFIDENCE = 0.95
_KEPT = ("correct", "total", "top1", "val_correct", "val_total", "best_epoch", "seconds", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean, sample deviation and the 95 % interval of the mean (Student's t), of shares in [0, 1]."""

    mean: float
    deviation: float
    ci95: tuple[float, float]


def spread_of(shares: Sequence[float]) -> Spread:
    """Return the spread of two or more shares."""
    mean, deviation = float(np.mean(shares)), float(np.std(shares, ddof=1))
    reach = float(scipy.stats.t.ppf((1 + _CONFIDENCE) / 2, df=len(shares) - 1)) * deviation / math.sqrt(len(shares))
    return Spread(mean=mean, deviation=deviation, ci95=(mean - reach, mean + reach))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeededRun:
    """One training: its seed, what its network gets right of the test and the validation images, and where it is."""

    seed: int
    correct: int
    total: int
    top1: float
    val_correct: int
    val_total: int
    best_epoch: int
    seconds: float
    output: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedStudy:
    """Several trainings that differ in their seed, how far apart they end, and what there is to say of all of them."""

    runs: tuple[SeededRun, ...]
    test: Spread
    validation: Spread
    sentence: str
    notes: tuple[str, ...] = ()


def train_seeds(suite: Suite, *, seeds: int, output: Path, tell: Listener = nobody) -> SeedStudy:
    """Train by the suite's seed, the one after it, ..., each into output/seed-N, and score each on the test split.

    Args:
        suite: of one variant that is trained, or of the dense network with a training budget.
        seeds: how many.
        output: the folder.
        tell: told of the epochs.

    Raises:
        ConfigError: fewer than two seeds.
    """
    if seeds < 2:  # noqa: PLR2004  one has no spread
        raise ConfigError("seeds", expected="at least 2", got=str(seeds), cure="one run needs no spread")
    first = (suite.model.train or suite.budget_of(suite.variants[0])).seed
    runs, notes = [], []
    for seed in range(first, first + seeds):
        folder = output / f"seed-{seed}"
        found = step(_seeded(suite, seed), training, folder, tell, store=folder)
        runs.append(SeededRun(seed=seed, **{name: getattr(found, name) for name in _KEPT}))
        notes.append(found.notes)
    test = spread_of([run.correct / run.total for run in runs])
    validation = spread_of([run.val_correct / run.val_total for run in runs])
    sentence = (
        f"{seeds} seeds: {percent(test.mean)} % of the test images right, deviation {percent(test.deviation)} pp, "
        f"95 % interval of the mean {percent(test.ci95[0])} to {percent(test.ci95[1])} %"
    )
    shared = tuple(note for note in notes[0] if all(note in other for other in notes))
    return SeedStudy(runs=tuple(runs), test=test, validation=validation, sentence=sentence, notes=shared)


def _seeded(suite: Suite, seed: int) -> Suite:
    by = {"seed": seed}
    if suite.model.train is not None:
        train = suite.model.train.model_copy(update=by)
        return suite.model_copy(update={"model": suite.model.model_copy(update={"train": train})})
    variants = tuple(
        one if one.budget is None else one.model_copy(update={"budget": one.budget.model_copy(update=by)})
        for one in suite.variants
    )
    return suite.model_copy(update={"fine_tune": suite.fine_tune.model_copy(update=by), "variants": variants})

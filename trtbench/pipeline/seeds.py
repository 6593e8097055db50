"""The same training by several seeds, and how far apart they end: the spread that a single run hides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from trtbench.errors import ConfigError
from trtbench.jsonable import to_jsonable
from trtbench.pipeline.quantize import score_file
from trtbench.pipeline.steps import train_model
from trtbench.progress import Listener, nobody

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbench.suite import DataConfig, TrainConfig

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean, sample deviation and the 95 % interval of the mean (Student's t), of shares in [0, 1]."""

    mean: float
    deviation: float
    ci95: tuple[float, float]


def spread_of(shares: Sequence[float]) -> Spread:
    """Return the spread of two or more shares."""
    mean, deviation = float(np.mean(shares)), float(np.std(shares, ddof=1))
    reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, df=len(shares) - 1)) * deviation / math.sqrt(len(shares))
    return Spread(mean=mean, deviation=deviation, ci95=(mean - reach, mean + reach))


def train_seeds(
    model: str,
    checkpoint: Path | None,
    data: DataConfig,
    config: TrainConfig,
    *,
    seeds: int,
    output: Path,
    tell: Listener = nobody,
) -> dict[str, Any]:
    """Train by config.seed, config.seed + 1, ..., each into output/seed-N, and score each on the test split.

    Returns:
        `runs` (seed, correct, total, val_correct, val_total, output), `test` and `validation` as Spread, `sentence`.

    Raises:
        ConfigError: fewer than two seeds.
    """
    from trtbench.data import load_dataset

    if seeds < 2:  # noqa: PLR2004  one has no spread
        raise ConfigError("seeds", expected="at least 2", got=str(seeds), cure="one run needs no spread")
    dataset = load_dataset(data)
    runs = []
    for seed in range(config.seed, config.seed + seeds):
        budget = config.model_copy(update={"seed": seed})
        made = train_model(model, checkpoint, data, budget, output=output / f"seed-{seed}", tell=tell)
        found = score_file(model, output / f"seed-{seed}" / "model.safetensors", dataset)
        kept = {name: made[name] for name in ("val_correct", "val_total", "best_epoch", "seconds", "output")}
        runs.append({"seed": seed, **found, **kept})
    test = spread_of([run["correct"] / run["total"] for run in runs])
    validation = spread_of([run["val_correct"] / run["val_total"] for run in runs])
    sentence = (
        f"{seeds} seeds: {100 * test.mean:.2f} % of the test images right, deviation {100 * test.deviation:.2f} pp, "
        f"95 % interval of the mean {100 * test.ci95[0]:.2f} to {100 * test.ci95[1]:.2f} %"
    )
    return {"runs": runs, "test": to_jsonable(test), "validation": to_jsonable(validation), "sentence": sentence}

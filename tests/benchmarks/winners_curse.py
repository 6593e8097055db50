"""How often a decision ships what breaks its limit: python -m tests.benchmarks.winners_curse.

Simulates whole decisions through `decide.limits.assess`, and writes docs/evidence/winners-curse.json. Each image has a
difficulty that all variants share (correlation 0.5); a variant loses and gains those it is weakest on, so that the
variants of a run err together as real ones do. The row that ships is the fastest of those that qualify, and the more a
variant loses the faster it is: the limit is tried by those who just break it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from trtbench.decide.limits import assess
from trtbench.disk import write_atomically
from trtbench.rows import AccuracyRecord, LatencyRecord, Row
from trtbench.suite import DecisionConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trtbench.decide.limits import Assessment

OUTPUT = Path(__file__).parents[2] / "docs" / "evidence" / "winners-curse.json"
LIMIT = DecisionConfig(max_drop_pp=2.0)
RUNS = 4500  # so that no share is known worse than 1.5 percentage points to either side, at 95 %
GAINS = 0.005  # chance that a variant gets right what the reference does not
CORRELATION = 0.5
IMAGES = (360, 1017)
SCENES: dict[str, tuple[float, ...]] = {
    "24 variants that all lost 2.2 pp": (0.022,) * 24,
    "a sweep of 15 from 0 to 4.2 pp": tuple(0.003 * step for step in range(15)),
    "a sweep of 8 with two INT8 twins each": tuple(0.005 * (step // 3) for step in range(24)),
    "4 variants that all lost 0.3 pp": (0.003,) * 4,
}
_LATENCY = LatencyRecord(
    scope="device", p50_ms=1.0, p90_ms=1.0, p99_ms=None, mean_ms=1.0, cov=0.0, ms_per_image=1.0, n=9, verdict="stable"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Shares of runs: `shipped` any row, one that truly breaks the limit, one that lost more than was told.

    `could` is the share in which knowing the truth would have shipped a row.
    """

    shipped: float
    broke_the_limit: float
    lost_more_than_told: float
    could: float


def simulate(drops: Sequence[float], *, images: int, corrected: bool, runs: int = RUNS, seed: int = 0) -> Rates:
    """Let `runs` decisions be taken among variants of these true drops, proportions in ascending order of speed."""
    truth = np.asarray(drops)
    lost, gained = counts(truth, images=images, runs=runs, seed=seed)
    shipped, broke, told = 0, 0, 0
    for run in range(runs):
        rows = [
            row_of(index, int(lost[run, index]), int(gained[run, index]), images, one_engine=not corrected)
            for index in range(truth.size)
        ]
        found = assess(rows, LIMIT)
        qualified = [index for index, one in enumerate(found) if one.is_qualified]
        if qualified:
            winner = qualified[-1]
            bound = _told(found[winner])
            shipped += 1
            broke += bool(truth[winner] >= LIMIT.max_drop_pp / 100)
            told += bool(100 * truth[winner] > bound)
    could = float((truth < LIMIT.max_drop_pp / 100).any())
    return Rates(shipped=shipped / runs, broke_the_limit=broke / runs, lost_more_than_told=told / runs, could=could)


def counts(
    truth: NDArray[np.float64], *, images: int, runs: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the images lost and gained: int64 (runs, variants) each."""
    random = np.random.default_rng(seed)
    most_lost, most_gained = stats.norm.ppf(truth + GAINS), stats.norm.isf(GAINS)
    lost, gained = (np.empty((runs, truth.size), np.int64) for _ in range(2))
    for run in range(runs):
        shared = random.standard_normal((1, images), dtype=np.float32)
        own = random.standard_normal((truth.size, images), dtype=np.float32)
        margin = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
        lost[run] = (margin < most_lost[:, None]).sum(axis=1)
        gained[run] = (margin > most_gained).sum(axis=1)
    return lost, gained


def row_of(index: int, lost: int, gained: int, images: int, *, one_engine: bool = False) -> Row:
    """Return a row that lost and gained so many images."""
    correct = images - lost
    accuracy = AccuracyRecord(
        correct=correct,
        total=images,
        top1=correct / images,
        top5=None,
        ci95=(0.0, 1.0),
        lost=lost,
        gained=gained,
        drop_pp=100 * (lost - gained) / images,
        drop_upper_pp=0.0,
        agreement=0.0,
    )
    row = Row(variant=f"v{index}", precision="int8", backend="onnxruntime-cpu", device="cpu", batch_size=1)
    sha256 = "the same" if one_engine else str(index)  # as one look: what a bound of each row alone would do
    return replace(row, engine_sha256=sha256, accuracy=accuracy, latency=_LATENCY)


def _told(one: Assessment) -> float:
    assert one.drop_upper_pp is not None
    return one.drop_upper_pp


def main() -> None:
    """Simulate every scene and write what was found."""
    found: dict[str, Any] = {"limit_pp": LIMIT.max_drop_pp, "runs": RUNS, "correlation": CORRELATION, "scenes": []}
    for scene, drops in SCENES.items():
        for images in IMAGES:
            for corrected in (False, True):
                rates = simulate(drops, images=images, corrected=corrected)
                record = {name: getattr(rates, name) for name in Rates.__slots__}
                found["scenes"].append({"scene": scene, "images": images, "corrected": corrected, **record})
                print(found["scenes"][-1], flush=True)  # noqa: T201  progress of a command
    write_atomically(OUTPUT, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What the whole procedure ships, against the truth: python -m tests.benchmarks.decisions.

Simulates a suite from its counts and times to its choice, and writes docs/evidence/decisions.json: images are drawn as
in winners_curse, times as in latency_coverage; what is open is timed in up to twice as many processes; limits, bounds,
ratios and order are those of `decide`. Beside it stands the rule of before, by which fewest bytes won among rows that
are not separable from the fastest.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks.winners_curse import counts, row_of
from trtbench.bench.spread import Interval, of_ratio, pool_of, ratio_interval
from trtbench.decide.limits import assess
from trtbench.decide.rank import objective_ratio, processes_needed, rank
from trtbench.disk import write_atomically
from trtbench.suite import DecisionConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.decide.rank import Ranking
    from trtbench.decide.ratios import PairedRatio
    from trtbench.rows import Row

OUTPUT = Path(__file__).parents[2] / "docs" / "evidence" / "decisions.json"
RUNS = 1000
DECISION = DecisionConfig(max_drop_pp=2.0)
IMAGES = 900  # of the quick start
PROCESSES, MOST_PROCESSES = 3, 6
PROCESS_SD = (0.02, 0.05, 0.10)  # with what the blocks of a process add
DRIFT_SD = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What is true of a row: the drop, a proportion; its time and its bytes, in any unit."""

    drop: float
    time: float
    size: float


SCENES: Mapping[str, tuple[Variant, ...]] = {
    "a file half as large is 10 % slower": (
        Variant(drop=0.0, time=1.0, size=2),
        Variant(drop=0.0, time=1.1, size=1),
    ),
    "a file half as large is 5.1 % slower": (
        Variant(drop=0.0, time=1.0, size=2),
        Variant(drop=0.0, time=1.051, size=1),
    ),
    "a file half as large is as fast": (
        Variant(drop=0.0, time=1.0, size=2),
        Variant(drop=0.0, time=1.0, size=1),
    ),
    "12 smaller files are 6 % slower": (
        Variant(drop=0.0, time=1.0, size=13),
        *(Variant(drop=0.0, time=1.06, size=12 - number) for number in range(12)),
    ),
    "a sweep of 15 that loses 0 to 4.2 pp": tuple(
        Variant(drop=0.003 * step, time=0.95**step, size=15 - step) for step in range(15)
    ),
    "a sweep of 8, each in FP32 and INT8": tuple(
        Variant(drop=0.005 * (step // 2), time=0.93 ** (step // 2) * (0.7 if step % 2 else 1.0), size=20 - step)
        for step in range(16)
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One run: the variant that was shipped, whether for its bytes, and whether the choice was told to be open."""

    index: int | None
    for_its_bytes: bool
    is_open: bool
    fastest: float  # the truth, of the rows that qualified


def one_run(
    variants: Sequence[Variant], lost: Sequence[int], gained: Sequence[int], *, process_sd: float, seed: int
) -> tuple[Shipped, Shipped]:
    """Decide one run by our rule and by that of before."""
    random = np.random.default_rng(seed)
    rows = [
        replace(row_of(index, int(lost[index]), int(gained[index]), IMAGES), engine_bytes=round(1e6 * variant.size))
        for index, variant in enumerate(variants)
    ]
    qualified = [one.row for one in assess(rows, DECISION) if one.is_qualified]
    if not qualified:
        nothing = Shipped(index=None, for_its_bytes=False, is_open=False, fastest=math.nan)
        return nothing, nothing
    noise = random.normal(0, DRIFT_SD, MOST_PROCESSES) + random.normal(0, process_sd, (len(rows), MOST_PROCESSES))
    logs = np.log([variant.time for variant in variants])[:, None] + noise
    paired = _paired(logs[:, :PROCESSES])
    timed = _timed(qualified, logs[:, :PROCESSES])
    ranking = rank(timed, DECISION, paired=paired)
    before = _before(ranking, timed, paired)
    if ranking.undecided:
        ratios = (objective_ratio(row, ranking.winner, DECISION, paired=paired) for row in ranking.undecided)
        wanted = max(processes_needed(ratio, PROCESSES, margin=DECISION.margin) for ratio in ratios)
        more = logs[:, : min(wanted, MOST_PROCESSES)]
        ranking = rank(_timed(qualified, more), DECISION, paired=_paired(more))
    fastest = min(variants[_index(row)].time for row in qualified)
    return (
        Shipped(
            index=_index(ranking.winner),
            for_its_bytes=ranking.winner is not ranking.fastest,
            is_open=bool(ranking.undecided),
            fastest=fastest,
        ),
        Shipped(index=_index(before), for_its_bytes=True, is_open=False, fastest=fastest),
    )


def _before(ranking: Ranking, qualified: Sequence[Row], paired: PairedRatio) -> Row:
    """Return the row of fewest bytes among those not separable from the fastest."""
    best = ranking.fastest
    level = [best]
    for row in qualified:
        found = paired(row, best)
        if row is not best and found is not None and found.low <= 1:
            level.append(row)
    return min(level, key=lambda row: row.engine_bytes or 0)


def _timed(rows: Sequence[Row], logs: NDArray[np.float64]) -> list[Row]:
    """Give rows the medians that were measured."""
    return [
        replace(row, latency=replace(row.latency, p50_ms=math.exp(float(logs[_index(row)].mean()))))
        for row in rows
        if row.latency is not None
    ]


def _paired(logs: NDArray[np.float64]) -> PairedRatio:
    pool = pool_of({str(row): dict(enumerate(of_row.tolist())) for row, of_row in enumerate(logs)})
    prior, processes = of_ratio(pool, pool), np.arange(logs.shape[1])
    found: dict[tuple[int, int], Interval] = {}

    def ratio(first: Row, second: Row) -> Interval:
        key = _index(first), _index(second)
        if key not in found:
            found[key] = ratio_interval(logs[key[0]] - logs[key[1]], processes, prior)
        return found[key]

    return ratio


def _index(row: Row) -> int:
    return int(row.variant.removeprefix("v"))


def rates(variants: Sequence[Variant], runs: Sequence[Shipped]) -> dict[str, float | None]:
    """Return what was shipped, as shares of the runs, and how much slower it is than the best in truth.

    `too_slow_for_its_bytes`: a smaller file was preferred that truly breaks the margin against a row that qualified.
    Regret is in time against the fastest row that truly keeps the limit, of the runs that shipped.
    """
    limit = DECISION.max_drop_pp / 100
    best = min(variant.time for variant in variants if variant.drop < limit)
    shipped = [(variants[run.index], run) for run in runs if run.index is not None]
    slow = [run.for_its_bytes and one.time > run.fastest * (1 + DECISION.margin) for one, run in shipped]
    regret = [one.time / best - 1 for one, _ in shipped if one.drop < limit]
    return {
        "shipped": len(shipped) / len(runs),
        "broke_the_limit": sum(one.drop >= limit for one, _ in shipped) / len(runs),
        "too_slow_for_its_bytes": sum(slow) / len(runs),
        "open": sum(run.is_open for run in runs) / len(runs),
        "mean_regret": float(np.mean(regret)) if regret else None,
        "mean_size": float(np.mean([one.size for one, _ in shipped])) if shipped else None,
    }


def main() -> None:
    """Simulate every scene and write what was found."""
    found: dict[str, Any] = {"runs": RUNS, "images": IMAGES, "limit_pp": DECISION.max_drop_pp, "scenes": []}
    found |= {"margin": DECISION.margin, "processes": PROCESSES, "most_processes": MOST_PROCESSES}
    for scene, variants in SCENES.items():
        lost, gained = counts(np.array([one.drop for one in variants]), images=IMAGES, runs=RUNS, seed=0)
        for process_sd in PROCESS_SD:
            both = [
                one_run(variants, lost[run].tolist(), gained[run].tolist(), process_sd=process_sd, seed=run)
                for run in range(RUNS)
            ]
            ours, before = zip(*both, strict=True)
            told = {"scene": scene, "process_sd": process_sd}
            found["scenes"].append({**told, "ours": rates(variants, ours), "before": rates(variants, before)})
            print(found["scenes"][-1], flush=True)  # noqa: T201  progress of a command
    write_atomically(OUTPUT, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How often the intervals of latency hold the truth: python -m tests.benchmarks.latency_coverage.

Simulates runs and takes their intervals as a report does, and writes docs/evidence/latency-coverage.json.
Logs of times are a row's own, plus what its process adds, plus what the machine adds to all rows of a process (its
drift), plus what a block adds. Blocks are added until the median of each row is within a share of it, and processes
where the ratios are still too wide to decide, as a suite does it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.interleave import Timing, joined
from trtbench.bench.spread import median_ranks, time_interval
from trtbench.bench.summary import log_times, pool_of_rows, timed_ratio
from trtbench.decide.rank import processes_needed
from trtbench.disk import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.bench.spread import Interval

OUTPUT = Path(__file__).parents[2] / "docs" / "evidence" / "latency-coverage.json"
RUNS = 1000
ROWS = 6
PROCESSES = 3
MOST_PROCESSES = 6  # where the ratios are too wide: what the budget of the quick start pays
MARGIN = 0.05
NOISE = 0.03  # of the median, at which blocks are no longer added
BLOCKS = (8, 50)  # at most, of each process; none has fewer than eight
PROCESS_SD = (0.01, 0.05, 0.10, 0.13)
BLOCK_SD = (0.05, 0.12, 0.22)
DRIFT_SD = 0.03  # of the machine from one process to the next, which a ratio does not feel
_NS = 1e9  # so that rounding to whole nanoseconds is nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Standard deviations of the log of a time; `unlike` is that of the log of the first two, from row to row.

    `most_processes` are timed where the ratios are too wide to decide.
    """

    process_sd: float
    block_sd: float
    blocks: int
    most_processes: int = MOST_PROCESSES
    unlike: float = 0.0


def one_run(scene: Scene, random: np.random.Generator) -> dict[str, Timing]:
    """Time rows whose true median is `_NS`, in three processes, and in more where ratios are too wide."""
    unlike = np.exp(random.normal(0, scene.unlike, ROWS))
    first = [_process(scene, unlike, random, number=number) for number in range(PROCESSES)]
    ratios = _ratios(_joined(first))
    wanted = min(scene.most_processes, max(processes_needed(one, PROCESSES, margin=MARGIN) for one in ratios))
    more = [_process(scene, unlike, random, number=number) for number in range(PROCESSES, wanted)]
    return _joined([*first, *more])


def _process(scene: Scene, unlike: NDArray[np.float64], random: np.random.Generator, *, number: int) -> list[Timing]:
    """Time all rows in blocks of one sample each, until `measure_interleaved` would stop."""
    own = random.normal(0, DRIFT_SD) + random.normal(0, scene.process_sd * unlike)
    logs = own[:, None] + random.normal(0, 1, (ROWS, scene.blocks)) * scene.block_sd * unlike[:, None]
    taken = np.rint(_NS * np.exp(logs)).astype(np.int64)
    rounds = rounds_until(taken, noise=NOISE)
    return [
        Timing(blocks=tuple(row[:rounds, None]), processes=(number,) * rounds, spans=((0, 1),) * rounds)
        for row in taken
    ]


def rounds_until(taken: NDArray[np.int64], *, noise: float, least: int = 8) -> int:
    """Return after how many of these blocks (rows, rounds) the median of every row is known to within `noise`.

    What `relative_noise` says after each round, of all rows at once.
    """
    for rounds in range(least, taken.shape[1]):
        ranks = median_ranks(rounds)
        assert ranks is not None, "six blocks have an interval"
        ordered = np.sort(taken[:, :rounds], axis=1)
        half = (ordered[:, ranks[1]] - ordered[:, ranks[0]]) / 2
        if (half <= noise * np.median(ordered, axis=1)).all():
            return rounds
    return int(taken.shape[1])


def _joined(processes: Sequence[Sequence[Timing]]) -> dict[str, Timing]:
    return {str(row): joined(parts) for row, parts in enumerate(zip(*processes, strict=True))}


def coverage(scene: Scene, *, runs: int = RUNS, seed: int = 0) -> dict[str, Any]:
    """Return how many of the intervals of medians and of ratios hold the truth, and how wide they are."""
    random = np.random.default_rng(seed)
    medians, ratios, processes, narrowest = [], [], [], math.inf
    for _ in range(runs):
        timed = one_run(scene, random)
        pool = pool_of_rows(timed)
        found = [time_interval(log_times(row), pool, name=name) for name, row in timed.items()]
        narrowest = min(narrowest, *(one.low for one in found))
        medians += [(one.low <= _NS <= one.high, one.high / one.low) for one in found]
        ratios += [(one.low <= 1 <= one.high, one.high / one.low) for one in _ratios(timed)]
        processes.append(len(set(timed["0"].processes)))
    assert narrowest > 0
    return {
        "process_sd": scene.process_sd,
        "block_sd": scene.block_sd,
        "blocks": scene.blocks,
        "most_processes": scene.most_processes,
        "unlike": scene.unlike,
        "medians": _shares(medians),
        "ratios": _shares(ratios),
        "processes": float(np.mean(processes)),
    }


def _ratios(timed: Mapping[str, Timing]) -> list[Interval]:
    """Return the ratio of each row to the next, so that none is in all of them."""
    pool = pool_of_rows(timed)
    names = list(timed)
    found = (timed_ratio(timed[a], timed[b], pools=(pool, pool)) for a, b in zip(names[::2], names[1::2], strict=True))
    return [one for one in found if one is not None]


def _shares(found: Sequence[tuple[bool, float]]) -> dict[str, float]:
    held, widths = zip(*found, strict=True)
    return {"held": float(np.mean(held)), "high_over_low": float(np.median(widths))}


def scenes() -> Iterable[Scene]:
    """The grid, rows of which some are much noisier than others, and the grid without a budget for more processes."""
    for process_sd, block_sd, blocks in product(PROCESS_SD, BLOCK_SD, BLOCKS):
        yield Scene(process_sd=process_sd, block_sd=block_sd, blocks=blocks)
    for process_sd in PROCESS_SD[::2]:
        yield Scene(process_sd=process_sd, block_sd=0.12, blocks=20, unlike=0.5)
    for process_sd, block_sd in product(PROCESS_SD, BLOCK_SD):
        yield Scene(process_sd=process_sd, block_sd=block_sd, blocks=BLOCKS[0], most_processes=PROCESSES)


def main() -> None:
    """Simulate every scene and write what was found."""
    found: dict[str, Any] = {
        "runs": RUNS,
        "rows": ROWS,
        "processes": PROCESSES,
        "noise": NOISE,
        "drift_sd": DRIFT_SD,
        "scenes": [],
    }
    for number, scene in enumerate(scenes()):
        found["scenes"].append(coverage(scene, seed=number))
        print(found["scenes"][-1], flush=True)  # noqa: T201  progress of a command
    write_atomically(OUTPUT, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

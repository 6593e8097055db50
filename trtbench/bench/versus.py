"""Which of two engines is faster: what an interval of their ratio proves, and the samples that settle it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trtbench.bench.interleave import Budget, Timing, joined, measure_interleaved
from trtbench.bench.measure import Timer
from trtbench.bench.processes import WORKER, Workers, cores
from trtbench.bench.summary import timed_ratio
from trtbench.engines.base import place_of
from trtbench.errors import RowError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from trtbench.bench.processes import WorkerProcess
    from trtbench.bench.records import EngineFile

Verdict = Literal["SAME", "FASTER", "SLOWER", "AMBIGUOUS"]

SAME_WITHIN = 0.05
DIFFERENT_BEYOND = 0.03
BLOCK_MS = 50.0
PAIRS = 150
PROCESS_PAIRS = 3
_CEILING = 2  # times as many process pairs at most
_WARM_UP_MS = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How many times as long the second engine takes as the first, its 95 % interval, and what that proves."""

    ratio: float
    ci95: tuple[float, float]
    verdict: Verdict
    pairs: int
    process_pairs: int


def judge(low: float, high: float) -> Verdict:
    """Say what the interval [low, high] of a ratio of times proves.

    SAME where it lies within 5 % of 1, so that a real difference is too small to matter; SLOWER or FASTER where it
    lies wholly beyond 3 % and is not SAME; AMBIGUOUS otherwise. Both need an interval, never a mere failure to find a
    difference (the two one-sided tests of Schuirmann 1987, J. Pharmacokin. Biopharm. 15:657-680).
    """
    if low >= 1 - SAME_WITHIN and high <= 1 + SAME_WITHIN:
        return "SAME"
    if low > 1 + DIFFERENT_BEYOND:
        return "SLOWER"
    return "FASTER" if high < 1 - DIFFERENT_BEYOND else "AMBIGUOUS"


def outcome(first: Timing, second: Timing) -> Outcome | None:
    """Compare two engines timed side by side; None where fewer than two blocks pair."""
    found = timed_ratio(second, first)
    if found is None:
        return None
    shared = set(first.processes) & set(second.processes)
    pairs = sum(min(first.processes.count(one), second.processes.count(one)) for one in shared)
    ends = found.low, found.high
    return Outcome(ratio=found.value, ci95=ends, verdict=judge(*ends), pairs=pairs, process_pairs=len(shared))


def time_together(
    engines: Sequence[EngineFile],
    *,
    batch_size: int,
    folder: Path,
    settings: Mapping[str, object],
    pairs: int = PAIRS,
    process_pairs: int = PROCESS_PAIRS,
    block_ms: float = BLOCK_MS,
    worker: str = WORKER,
    on_share: Callable[[float], None] | None = None,
) -> dict[str, Timing]:
    """Time engines side by side in fresh processes until every one is settled against the first, or a ceiling.

    There are at least `pairs` rounds over `process_pairs` processes of each engine. While an engine is AMBIGUOUS
    against the first one, more processes follow, up to twice as many: the samples of all of them count, so that a
    comparison that was clear at first is never made longer, and one that was not is never decided by fewer.

    Args:
        engines: files with their sidecars; names are unique.
        batch_size: images of one inference; seeded noise stands in for them.
        folder: for logs.
        settings: `threads` and `spin` for the runtimes; an engine's own settings come before them.
        pairs: rounds at least, over all processes.
        process_pairs: fresh processes of each engine, at least.
        block_ms: length of a block.
        worker: the module that the workers run.
        on_share: told the share done of the least there is to do.

    Raises:
        RowError: an engine cannot be loaded or timed.
    """
    rounds = -(-pairs // process_pairs)
    budget = Budget(block_ms=block_ms, duration_s=1e-9, iterations=1, warm_up_ms=_WARM_UP_MS, rounds=rounds)
    taken: dict[str, list[Timing]] = {engine.name: [] for engine in engines}
    threads = max(int(str({**settings, **engine.settings}.get("threads", 1))) for engine in engines)
    for process in range(_CEILING * process_pairs):
        if process >= process_pairs and _all_settled(taken):
            break
        with Workers(module=worker, spin=bool(settings.get("spin"))) as workers:
            timers = {
                engine.name: Timer(
                    worker=_open(workers, engine, batch_size, folder=folder, settings=settings),
                    batch_size=batch_size,
                    warm_up_ms=_WARM_UP_MS,
                    cores=cores(threads),
                )
                for engine in engines
            }
            told = None if on_share is None else _part_of(on_share, process, process_pairs)
            seed = [process, batch_size]
            for name, timing in measure_interleaved(timers, budget, seed=seed, process=process, on_round=told).items():
                if isinstance(timing, RowError):
                    raise timing
                taken[name].append(timing)
    return {name: joined(parts) for name, parts in taken.items()}


def _open(
    workers: Workers, engine: EngineFile, batch_size: int, *, folder: Path, settings: Mapping[str, object]
) -> WorkerProcess:
    preparing = {"backend": place_of(engine.backend), "engine": str(engine.path), "images": None}
    log = folder / "logs" / f"{engine.name.replace(' ', '_')}.log"
    worker = workers.start(engine.name, log=log, preparing=preparing)
    worker.ask("open", settings={**settings, **engine.settings}, batch=batch_size)
    return worker


def _all_settled(taken: Mapping[str, Sequence[Timing]]) -> bool:
    first, *others = (joined(parts) for parts in taken.values())
    found = [outcome(first, other) for other in others]
    return all(one is not None and one.verdict != "AMBIGUOUS" for one in found)


def _part_of(on_share: Callable[[float], None], process: int, of: int) -> Callable[[float], None]:
    def told(share: float) -> None:
        on_share(min(1.0, (process + share) / of))

    return told

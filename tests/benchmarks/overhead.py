"""What measuring costs: p50 through trtbench's worker beside a bare loop over `InferenceSession.run_with_iobinding`.

    python -m tests.benchmarks.overhead --out DIR

Both loops run the same loaded session, in fresh worker processes one after the other, in AB/BA blocks of 50 ms: where
memory falls differs between processes by more than the overhead, and is no part of it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.benchmarks.subjects import build_subjects
from trtbench.bench.interleave import Budget, Timing, joined, measure_interleaved, side_by_side
from trtbench.bench.processes import Workers, cores
from trtbench.bench.spread import ratio_interval
from trtbench.disk import write_atomically
from trtbench.engines.base import place_of
from trtbench.environment import collect_environment
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trtbench.bench.processes import WorkerProcess
    from trtbench.bench.records import EngineFile

_LIMIT = 1.02


@dataclass(frozen=True, slots=True)
class _Loop:
    """One of the two loops in a worker."""

    worker: WorkerProcess
    scope: str

    def warm_up(self) -> float:
        answer = self.worker.ask("warm_up", batch=1, warm_up_ms=200, cores=cores(1))
        return float(answer["inference_ns"])

    def time(self, samples: int) -> NDArray[np.int64]:
        return np.array(self.worker.ask("time", batch=1, samples=samples, scope=self.scope)["ns"], dtype=np.int64)


def measure(engine: EngineFile, *, folder: Path, pairs: int, processes: int) -> tuple[Timing, Timing]:
    """Return what trtbench's loop and the bare one took, in at least `pairs` pairs of blocks."""
    budget = Budget(block_ms=50.0, duration_s=1e-9, iterations=1, rounds=-(-pairs // processes))
    taken: dict[str, list[Timing]] = {"device": [], "bare": []}
    preparing = {"backend": place_of(engine.backend), "engine": str(engine.path), "images": None}
    for process in range(processes):
        with Workers(module="tests.benchmarks.tampered_worker") as workers:
            worker = workers.start("overhead", log=folder / "overhead.log", preparing=preparing)
            worker.ask("open", settings={"threads": 1})
            loops = {scope: _Loop(worker, scope) for scope in taken}
            for scope, row in measure_interleaved(loops, budget, seed=process, process=process).items():
                if not isinstance(row, Timing):
                    raise row
                taken[scope].append(row)
    return joined(taken["device"]), joined(taken["bare"])


def main() -> None:
    """Measure, and write overhead.json; exit 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--processes", type=int, default=6)
    arguments = parser.parse_args()
    out = arguments.out
    engine = build_subjects(out / "subjects")["fp32"]
    ours, bare = measure(engine, folder=out, pairs=arguments.pairs, processes=arguments.processes)
    pairs = side_by_side(ours, bare)
    ratio = ratio_interval(np.log(pairs.first / pairs.second), pairs.processes)
    found = {
        "what": "p50 through trtbench's worker over p50 of a bare loop over InferenceSession.run_with_iobinding",
        "network": "resnet20 fp32, batch 1, one thread",
        "ratio_p50": ratio.value,
        "ratio_p50_ci95": [ratio.low, ratio.high],
        "limit": _LIMIT,
        "p50_trtbench_ms": float(np.median(ours.samples_ns)) / 1e6,
        "p50_bare_ms": float(np.median(bare.samples_ns)) / 1e6,
        "pairs": len(pairs.first),
        "block_ms": 50,
        "processes": arguments.processes,
        "samples": [len(ours.samples_ns), len(bare.samples_ns)],
        "environment": to_jsonable(collect_environment()),
    }
    write_atomically(out / "overhead.json", json.dumps(found, indent=1) + "\n")
    print(f"ratio_p50 {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f}), limit {_LIMIT}")  # noqa: T201  a benchmark's answer
    if ratio.value > _LIMIT:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

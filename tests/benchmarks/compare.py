"""How far `trtbench compare` can be trusted: twenty comparisons of equal engines, twenty with a planted slow-down.

    python -m tests.benchmarks.compare --out DIR

Real engines of ONNX Runtime in FP32 and INT8 at batch 1 and 32. In each trial one engine file is timed against itself,
and against itself with a loop that spins for a tenth of its measured p50 after each inference.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks.subjects import build_subjects
from trtbench.bench.versus import PAIRS, PROCESS_PAIRS, outcome, time_together
from trtbench.disk import write_atomically
from trtbench.environment import collect_environment
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from trtbench.bench.records import EngineFile

_BATCH_SIZES = (1, 32)
_TRIALS = 5  # of each engine and batch size: 20 in all
_PLANTED = 0.10
_WORKER = "tests.benchmarks.tampered_worker"
_SETTINGS = {"threads": 1, "spin": False}


def trial(engine: EngineFile, *, batch_size: int, p50_ns: float, folder: Path, pairs: int) -> dict[str, Any]:
    """Time an engine against itself and against itself slowed down, side by side; say what each comparison finds."""
    subjects = [
        replace(engine, name="first"),
        replace(engine, name="second"),
        replace(engine, name="slowed", settings={"spin_ns": round(_PLANTED * p50_ns)}),
    ]
    timed = time_together(
        subjects, batch_size=batch_size, folder=folder, settings=_SETTINGS, pairs=pairs, worker=_WORKER
    )
    return {name: to_jsonable(outcome(timed["first"], timed[name])) for name in ("second", "slowed")}


def p50_ns(engine: EngineFile, *, batch_size: int, folder: Path) -> float:
    """Measure the p50 that the planted slow-down is a tenth of."""
    alone = time_together(
        [engine], batch_size=batch_size, folder=folder, settings=_SETTINGS, pairs=20, process_pairs=1, worker=_WORKER
    )
    return float(np.median(alone[engine.name].samples_ns))


def main() -> None:
    """Run the trials, and write compare.json after each; exit 1 where one of the forty is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--trials", type=int, default=_TRIALS)
    arguments = parser.parse_args()
    out, begun = arguments.out, time.monotonic()
    trials: list[dict[str, Any]] = []
    for precision, engine in build_subjects(out / "subjects").items():
        for batch_size in _BATCH_SIZES:
            p50 = p50_ns(engine, batch_size=batch_size, folder=out)
            for _ in range(arguments.trials):
                found = trial(engine, batch_size=batch_size, p50_ns=p50, folder=out, pairs=arguments.pairs)
                trials.append({"precision": precision, "batch_size": batch_size, "p50_ms": p50 / 1e6, **found})
                _write(out, trials, seconds=time.monotonic() - begun, pairs=arguments.pairs)
    same, slowed = (sum(_is(one, kind) for one in trials) for kind in ("second", "slowed"))
    print(f"same {same} of {len(trials)}, found {slowed} of {len(trials)}")  # noqa: T201  a benchmark's answer
    if (same, slowed) != (len(trials), len(trials)):
        raise SystemExit(1)


def _is(trial: dict[str, Any], kind: str) -> bool:
    """Say whether a comparison found what there is."""
    expected = {"second": "SAME", "slowed": "SLOWER"}
    return bool(trial[kind]["verdict"] == expected[kind])


def _write(out: Path, trials: list[dict[str, Any]], *, seconds: float, pairs: int) -> None:
    found = {
        "what": "trtbench's comparison of an engine with itself, and with itself spinning for a tenth of its p50",
        "same_of_20": sum(_is(one, "second") for one in trials),
        "found_of_20": sum(_is(one, "slowed") for one in trials),
        "trials": len(trials),
        "pairs_at_least": pairs,
        "process_pairs_at_least": PROCESS_PAIRS,
        "block_ms": 50,
        "planted": _PLANTED,
        "seconds": seconds,
        "comparisons": trials,
        "environment": to_jsonable(collect_environment()),
    }
    write_atomically(out / "compare.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What INT8 costs the quick start on three seeds: python -m tests.benchmarks.quickstart_seeds --out DIR --work DIR.

The suite is the shipped one but for its seeds (of weights, fine-tuning and calibration) and its timing, which is cut
short: only what the rows score is kept, in `DIR/quickstart-seeds.json`. `--work` keeps what is made.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import trtbench
from trtbench.disk import write_atomically
from trtbench.make.makings import Places
from trtbench.running import run_suite
from trtbench.suite import parse_suite

if TYPE_CHECKING:
    from trtbench.report import Report

_SEEDS = (0, 1, 2)
_SUITE = Path(trtbench.__file__).parent / "suites" / "quickstart.yaml"
_TIMING = {"batch_sizes": [1], "duration": 0.3, "warm_up": 20, "baselines": []}


def main() -> int:
    """Run the suite for each seed and write what its INT8 rows lose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    found = [row for seed in _SEEDS for row in _rows(seed, options.work)]
    write_atomically(options.out / "quickstart-seeds.json", json.dumps({"rows": found}, indent=1) + "\n")
    return 0


def _rows(seed: int, work: Path) -> list[dict[str, Any]]:
    raw = yaml.safe_load(_SUITE.read_text(encoding="utf-8"))
    raw |= {"name": f"quickstart-seed-{seed}", "bench": _TIMING}
    for section in (raw["model"]["train"], raw["fine_tune"], raw["calibration"]):
        section["seed"] = seed
    suite = parse_suite(yaml.safe_dump(raw, sort_keys=False), origin="quickstart")
    places = Places(runs=work / "runs", engines=work / "engines")
    report, _ = run_suite(suite, places, argv=sys.argv, now=datetime.now(UTC))
    return rows_of(report, seed)


def rows_of(report: Report, seed: int) -> list[dict[str, Any]]:
    """Return what the INT8 rows of a report get right beside FP32's of their variant."""
    scored = {(row.variant, row.shown_precision): row for row in report.rows if row.accuracy is not None}
    rows = []
    for (variant, precision), row in scored.items():
        own, fp32 = row.accuracy, scored[variant, "fp32"].accuracy
        assert own is not None
        assert fp32 is not None
        if precision != "fp32":
            rows.append(
                {
                    "seed": seed,
                    "variant": variant,
                    "precision": precision,
                    "calibrated_by": row.calibration and row.calibration.method,
                    "snr_db": row.calibration and row.calibration.snr_db,
                    "fp32_correct": fp32.correct,
                    "correct": own.correct,
                    "total": own.total,
                    "drop_pp": own.drop_pp,
                }
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())

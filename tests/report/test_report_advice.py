"""Advice names what disturbed a measurement and what the user can do about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trtbench.report.advice import advice
from trtbench.report.document import read_report

ROWS = read_report(Path(__file__).parent / "twenty-four-rows.json").rows
HOST = {"host": {"cpu": {"logical_cores": 2, "governor": "performance"}}}


def _spread(value: float) -> dict[str, float]:
    return {"min": value, "median": value, "max": value}


def test_a_quiet_machine_needs_no_advice() -> None:
    quiet = {"cpu": {"readings": 9, "throttled": {}, "load": _spread(1.0), "steal": _spread(0.0)}}
    gpu = {"gpu 0": {"readings": 9, "throttled": {}, "clock_mhz": _spread(1900), "other_processes": _spread(0)}}

    assert advice(ROWS, {**quiet, **gpu}, HOST) == ()
    assert advice(ROWS, {}, {}) == ()


@pytest.mark.parametrize(
    ("device", "figures", "told"),
    [
        ("cpu", {"steal": _spread(0.08)}, "The hypervisor gave 8.00 % of the CPU to others"),
        ("cpu", {"load": _spread(3.5)}, "Load was 3.50 on 2 cores"),
        ("gpu 1", {"throttled": {"power cap": 4}}, "gpu 1 held back for power cap in 4 of 9 readings."),
        ("gpu 1", {"clock_mhz": {"min": 1000, "median": 1500, "max": 1900}}, "sudo nvidia-smi -i 1 -lgc <MHz>"),
        ("gpu 1", {"other_processes": {"min": 0, "median": 0, "max": 2}}, "Up to 2 other processes computed on gpu 1"),
    ],
)
def test_each_disturbance_has_its_sentence(device: str, figures: dict[str, Any], told: str) -> None:
    found = advice(ROWS, {device: {"readings": 9, "throttled": {}, **figures}}, HOST)

    assert len(found) == 1
    assert told in found[0]


def test_a_governor_that_saves_power_is_named() -> None:
    saving = {"host": {"cpu": {"logical_cores": 2, "governor": "powersave"}}}
    assert "cpupower frequency-set -g performance" in advice(ROWS, {"cpu": {"readings": 1}}, saving)[0]


def test_flagged_samples_are_counted_over_all_rows() -> None:
    assert ROWS[0].latency is not None
    flagged = replace(ROWS[0], latency=replace(ROWS[0].latency, throttled_samples=5))
    total = sum(row.latency.n for row in (flagged, *ROWS[1:]) if row.latency is not None)

    found = advice([flagged, *ROWS[1:]], {}, HOST)

    assert found == (f"5 of {total:,} samples were taken while the machine held back; they are kept.",)

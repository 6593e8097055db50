"""The check of a device as far as it goes without one: its probes on the double of CUDA, its tests and its suite."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.device.probe import asked, clocks_on_short_work, facts, one_stream_many_threads
from trtbench.suite import load_suite

_HERE = Path(__file__).parent


@pytest.mark.usefixtures("tensorrt_10_double")
def test_the_probes_of_the_seam_to_cuda_find_something() -> None:
    clocks, threads = clocks_on_short_work(samples=8), one_stream_many_threads(rounds=1, requests=3)

    assert facts()["package"].startswith("cupy")
    assert list(clocks) == ["20 us", "50 us", "100 us", "500 us"]
    parts = {f"part_{name}_us" for name in ("h2d", "enqueue", "compute", "d2h")}
    assert all(set(one) == {"wall_us", "events_us", "events_depth_2_us", *parts} for one in clocks.values())
    assert threads == {"errors": 0, "of": 4, "first": [], "requests": [3, 3, 3, 3]}


def test_a_probe_that_fails_says_so_and_the_others_go_on() -> None:
    def broken() -> None:
        raise RuntimeError("no device")

    def whole() -> int:
        return 3

    found = asked((broken, whole))

    assert found["broken"]["failed"] == "RuntimeError: no device"
    assert "raise RuntimeError" in found["broken"]["where"]
    assert found["whole"] == 3
    assert {"broken_s", "whole_s"} <= found.keys()
    json.dumps(found)


def test_the_check_names_tests_that_exist_and_a_suite_that_is_read() -> None:
    text = (_HERE / "check").read_text(encoding="utf-8")
    named = re.findall(r"tests/[\w/.]+", text)
    root = _HERE.parents[1]

    assert len(named) > 4
    assert [path for path in named if not (root / path).exists()] == []
    assert load_suite(_HERE / "suite.yaml").name == "device"

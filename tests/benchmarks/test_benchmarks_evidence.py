"""The benchmarks of trtbench itself run, and what was committed of them holds their targets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parent.parent.parent
_EVIDENCE = _ROOT / "docs" / "evidence"


def _committed(name: str) -> list[Path]:
    return sorted(_EVIDENCE.glob(name))


def _run(benchmark: str, out: Path, *options: str) -> Any:
    """Run a benchmark for a moment; its targets need more, so its exit code says nothing here."""
    command = [sys.executable, "-m", f"tests.benchmarks.{benchmark}", "--out", str(out), *options]
    subprocess.run(command, cwd=_ROOT, check=False, capture_output=True)
    return json.loads((out / f"{benchmark}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", _committed("overhead.json"), ids=lambda path: path.name)
def test_measuring_costs_two_percent_at_most(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))

    assert found["ratio_p50"] <= 1.02
    assert found["pairs"] >= 300
    assert found["block_ms"] == 50


@pytest.mark.parametrize("path", _committed("compare.json"), ids=lambda path: path.name)
def test_compare_was_right_forty_times(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))

    assert (found["same_of_20"], found["found_of_20"], found["trials"]) == (20, 20, 20)
    assert found["seconds"] < 15 * 60
    for one in found["comparisons"]:
        assert one["second"]["pairs"] >= 150
        assert one["second"]["process_pairs"] >= 3
    assert {(one["precision"], one["batch_size"]) for one in found["comparisons"]} == {
        ("fp32", 1),
        ("fp32", 32),
        ("int8", 1),
        ("int8", 32),
    }


@pytest.mark.parametrize("path", _committed("winners-curse.json"), ids=lambda path: path.name)
def test_a_decision_breaks_its_limit_or_its_word_in_one_run_of_twenty_at_most(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))

    assert found["runs"] >= 4500  # 1.5 percentage points to either side at 95 %
    together = [one for one in found["scenes"] if one["corrected"]]
    assert {one["images"] for one in together} == {360, 1017}
    assert max(one["broke_the_limit"] for one in together) <= 0.05
    assert max(one["lost_more_than_told"] for one in together) <= 0.05
    alone = [one["broke_the_limit"] for one in found["scenes"] if not one["corrected"]]
    assert max(alone) > 0.3


@pytest.mark.slow
def test_the_overhead_is_measured_beside_a_bare_loop(tmp_path: Path) -> None:
    found = _run("overhead", tmp_path, "--pairs", "4", "--processes", "2")

    assert found["pairs"] == 4
    assert found["ratio_p50_ci95"][0] <= found["ratio_p50"] <= found["ratio_p50_ci95"][1]
    assert 0.5 < found["ratio_p50"] < 2
    assert min(found["samples"]) >= 4


@pytest.mark.slow
def test_each_trial_compares_with_itself_and_with_a_planted_slow_down(tmp_path: Path) -> None:
    found = _run("compare", tmp_path, "--trials", "1", "--pairs", "6")

    assert found["trials"] == 4
    for one in found["comparisons"]:
        assert one["slowed"]["ratio"] > one["second"]["ratio"] - 0.2
        assert one["second"]["pairs"] >= 6


@pytest.mark.parametrize("path", _committed("rtx/builds.json"), ids=lambda path: path.name)
def test_the_real_compiler_built_twelve_networks_in_five_precisions_for_two_gpus(path: Path) -> None:
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]

    assert {row["precision"] for row in rows} == {"fp32", "fp16", "bf16", "int8", "int8+fp16"}
    assert len({(row["network"], row["precision"], row["target"]) for row in rows}) == 12 * 5 * 2
    assert [row for row in rows if row["status"] != "built"] == []
    for row in rows:
        if row["precision"].startswith("int8"):
            planned, total = row["planned"].split(" convolutions")[0].split(" of ")
            assert row["achieved"] in {"int8", f"int8 in {planned} of {total} convolutions"}

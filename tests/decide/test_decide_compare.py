"""Two reports side by side: rows by name, machines that must be alike, stored ratios, and gates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trtbench.decide.compare import (
    Comparison,
    Gates,
    broken_gates,
    compare_stored,
    is_same_engine,
    match_rows,
    parse_gates,
    top1_drop_pp,
    unlike_machines,
)
from trtbench.errors import ConfigError
from trtbench.report.document import Report, read_report

REPORT = read_report(Path(__file__).parent.parent / "report" / "twenty-four-rows.json")
MEASURED = [row for row in REPORT.rows if row.status == "ok" and row.latency is not None]
ANCHORED = next(row for row in MEASURED if row.latency and row.latency.anchor not in (None, row.name))
assert ANCHORED.latency is not None
ANCHOR = next(row for row in MEASURED if ANCHORED.latency and row.name == ANCHORED.latency.anchor)


def _changed(name: str, **changes: Any) -> Report:
    """Return the report with one row's latency changed; every file has a hash."""
    rows = tuple(
        replace(row, engine_sha256=row.name)
        if row.name != name or row.latency is None
        else replace(row, engine_sha256=row.name, latency=replace(row.latency, **changes))
        for row in REPORT.rows
    )
    return replace(REPORT, rows=rows)


def test_rows_pair_by_name_and_what_is_in_one_only_is_named() -> None:
    found = match_rows(REPORT.rows, REPORT.rows[1:])

    assert found.only_first == (REPORT.rows[0].name,)
    assert found.only_second == ()
    assert [a.name for a, _ in found.pairs] == [b.name for _, b in found.pairs]


def test_machines_are_unlike_by_cpu_cores_or_gpus() -> None:
    environment = {"host": {"cpu": {"model": "A", "logical_cores": 2}}, "gpus": [{"name": "T4"}]}

    assert unlike_machines(environment, environment) == ()
    assert unlike_machines(environment, {**environment, "gpus": []}) == ("GPUs: T4 against unknown",)
    other = {**environment, "host": {"cpu": {"model": "B", "logical_cores": 4}}}
    assert unlike_machines(environment, other) == ("CPU: A against B", "cores: 2 against 4")


def test_stored_samples_compare_through_the_anchor_of_both_runs() -> None:
    before = _changed(ANCHORED.name, ratio=1.0, ratio_ci95=(0.99, 1.01), p50_ms=5.0)
    after = _changed(ANCHORED.name, ratio=1.2, ratio_ci95=(1.19, 1.21), p50_ms=2.0)  # on a machine that got faster
    first, second = (next(row for row in one.rows if row.name == ANCHORED.name) for one in (before, after))

    ratio, how = compare_stored(first, second, (before.rows, after.rows))

    assert ratio.value == pytest.approx(1.2)
    assert ratio.ci95 is not None
    assert ratio.ci95[0] == pytest.approx(1.2 / 1.0131, rel=1e-3)
    assert ANCHOR.name in how


def test_without_one_anchor_file_there_is_no_interval() -> None:
    before = _changed(ANCHORED.name)
    rebuilt = tuple(replace(row, engine_sha256="rebuilt") if row.name == ANCHOR.name else row for row in before.rows)
    after = replace(before, rows=rebuilt)
    row = next(one for one in before.rows if one.name == ANCHORED.name)
    anchor = next(one for one in before.rows if one.name == ANCHOR.name)
    assert row.latency is not None
    lonely = replace(row, latency=replace(row.latency, anchor=None))

    found = [
        compare_stored(row, row, (before.rows, after.rows)),
        compare_stored(anchor, anchor, (before.rows, before.rows)),
        compare_stored(lonely, lonely, (before.rows, before.rows)),
    ]

    assert all(ratio.ci95 is None for ratio, _ in found)
    assert ["not the same file" in found[0][1], "the anchor itself" in found[1][1], "no anchor" in found[2][1]] == [
        True
    ] * 3


def test_engines_are_the_same_by_bytes_and_settings_whatever_the_cores() -> None:
    row = replace(ANCHOR, engine_sha256="a", settings={"threads": 1}, cores=(0,))

    assert is_same_engine(row, replace(row, cores=(1,)))
    assert not is_same_engine(row, replace(row, settings={"threads": 2}))
    assert not is_same_engine(row, replace(row, engine_sha256="b"))
    assert not is_same_engine(replace(row, engine_sha256=None), replace(row, engine_sha256=None))


def test_gates_are_read_as_they_are_written() -> None:
    assert parse_gates("slower:5%, drop:0.5,inconclusive") == Gates(slower=0.05, drop_pp=0.5, inconclusive=True)
    assert parse_gates("") == Gates()


@pytest.mark.parametrize("text", ["slower:5", "drop:0.5%", "faster:5%", "slower:x%", ",", "inconclusive,"])
def test_a_gate_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--fail-on"):
        parse_gates(text)


def test_each_gate_breaks_for_its_own_reason() -> None:
    def one(**changes: object) -> Comparison:
        plain = Comparison(name="r", verdict="SAME", ratio=1.0, ci95=(0.99, 1.01), drop_pp=0.0, how="")
        return replace(plain, **changes)  # type: ignore[arg-type]  # the fields as they are

    gates = Gates(slower=0.05, drop_pp=0.5, inconclusive=True)

    def broken(**changes: object) -> list[tuple[str, float, float | None]]:
        return [(gate.key, gate.value, gate.limit) for gate in broken_gates([one(**changes)], gates)]

    assert broken() == []
    assert broken(verdict="SLOWER", ratio=1.04) == []
    assert broken(verdict="SLOWER", ratio=1.1) == [("slower", 1.1, 0.05)]
    assert broken(drop_pp=0.6) == [("drop_pp", 0.6, 0.5)]
    assert broken(verdict="AMBIGUOUS", ratio=1.2) == [("inconclusive", 1.2, None)]
    assert broken_gates([one(verdict="SLOWER", ratio=2.0, drop_pp=9.0)], Gates()) == ()


def test_the_drop_between_two_reports_is_of_their_top1() -> None:
    assert ANCHORED.accuracy is not None
    worse = replace(ANCHORED, accuracy=replace(ANCHORED.accuracy, top1=ANCHORED.accuracy.top1 - 0.01))

    assert top1_drop_pp(ANCHORED, worse) == pytest.approx(1.0)
    assert top1_drop_pp(ANCHORED, replace(ANCHORED, accuracy=None)) is None

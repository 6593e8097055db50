"""Two reports side by side: which rows are the same network, what changed, and which limits that breaks.

Pure; `running.again` re-times engines where they are at hand and hands the outcome in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trtbench.decide.ratios import Ratio, is_measured, p50_ms, quotient
from trtbench.errors import ConfigError
from trtbench.suite import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbench.bench.versus import Verdict
    from trtbench.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One row of both reports: time of the second over time of the first, and what that proves.

    `ci95` is None where nothing gives an interval. `drop_pp` is how many points of top-1 the second lost. `how` says
    where the ratio comes from.
    """

    name: str
    verdict: Verdict
    ratio: float
    ci95: tuple[float, float] | None
    drop_pp: float | None
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What makes a comparison fail: a share of slow-down, a drop in points, rows that stay ambiguous."""

    slower: float | None = None
    drop_pp: float | None = None
    inconclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenGate:
    """A gate that the row of this name breaks: the ratio or the drop it has, against the limit, if the gate has one."""

    name: str
    key: Literal["slower", "drop_pp", "inconclusive"]
    value: float
    limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """Rows measured in both reports, and the names of those in one only."""

    pairs: tuple[tuple[Row, Row], ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def parse_gates(text: str) -> Gates:
    """Read "slower:5%,drop:0.5,inconclusive".

    Raises:
        ConfigError: something else stands there.
    """
    found: dict[str, Any] = {}
    for part in (one.strip() for one in text.split(",")) if text else ():
        if part == "inconclusive":
            found["inconclusive"] = True
        elif match := re.fullmatch(r"slower:([0-9]{1,4}(?:\.[0-9]{1,9})?)%", part):
            found["slower"] = float(match.group(1)) / 100
        elif match := re.fullmatch(r"drop:([0-9]{1,3}(?:\.[0-9]{1,9})?)", part):
            found["drop_pp"] = float(match.group(1))
        else:
            raise ConfigError(
                "--fail-on",
                expected="slower:PERCENT%, drop:POINTS or inconclusive, joined by commas",
                got=repr(part),
                cure="e.g. --fail-on slower:5%,drop:0.5,inconclusive",
            )
    return Gates(**found)


def match_rows(first: Sequence[Row], second: Sequence[Row]) -> Matched:
    """Pair the measured rows of two reports by name."""
    ours, theirs = ({row.name: row for row in rows if is_measured(row)} for rows in (first, second))
    return Matched(
        pairs=tuple((row, theirs[name]) for name, row in ours.items() if name in theirs),
        only_first=tuple(name for name in ours if name not in theirs),
        only_second=tuple(name for name in theirs if name not in ours),
    )


def unlike_machines(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how the machines of two environments differ in what decides latency."""
    facts = zip(("CPU", "cores", "GPUs"), machine_facts(first), machine_facts(second), strict=True)
    return tuple(
        f"{what}: {one or 'unknown'} against {other or 'unknown'}" for what, one, other in facts if one != other
    )


def machine_facts(environment: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what decides the latency of a machine: the CPU's model, its cores, the GPUs."""
    host = environment.get("host", {})
    cpu = host.get("cpu", {}) if isinstance(host, dict) else {}
    gpus = ", ".join(str(gpu.get("name")) for gpu in environment.get("gpus", ()))
    return str(cpu.get("model", "")), str(cpu.get("logical_cores", "")), gpus


def runtime_versions(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of the runtimes in an environment as a report holds it."""
    packages = [one for one in environment.get("packages", ()) if isinstance(one, dict)]
    runtimes = {module for entry in BACKENDS.values() for module in entry.packages}
    return {one["module"]: one["version"] for one in packages if one.get("module") in runtimes}


def is_same_engine(first: Row, second: Row) -> bool:
    """Whether both rows ran the same bytes with the same settings; the cores they were bound to may differ."""
    if first.engine_sha256 is None or first.engine_sha256 != second.engine_sha256:
        return False
    return first.settings == second.settings


def compare_stored(first: Row, second: Row, runs: tuple[Sequence[Row], Sequence[Row]]) -> tuple[Ratio, str]:
    """Return the ratio of a row of two runs as its stored samples tell it, and how; `runs` are all rows of each.

    Both runs timed the anchor, whose file is the same: the ratio of the ratios to it is free of what changed the whole
    machine between the runs, and blind to what changed the anchor itself.
    """
    medians = Ratio(value=p50_ms(second) / p50_ms(first))
    anchors = [_anchor(row, rows) for row, rows in zip((first, second), runs, strict=True)]
    if anchors[0] is None or anchors[1] is None or anchors[0].name != anchors[1].name:
        return medians, "medians of two runs that share no anchor"
    if anchors[0].name == first.name:
        return medians, "medians of the anchor itself in two runs, which nothing normalises"
    if not is_same_engine(anchors[0], anchors[1]):
        return medians, f"medians of two runs; their anchor {anchors[0].name} is not the same file"
    assert first.latency is not None
    assert second.latency is not None
    return quotient(second.latency, first.latency), f"stored samples, each against {anchors[0].name} in its own run"


def top1_drop_pp(first: Row, second: Row) -> float | None:
    """Return how many points of top-1 the second row lost against the first."""
    if first.accuracy is None or second.accuracy is None:
        return None
    return 100 * (first.accuracy.top1 - second.accuracy.top1)


def broken_gates(comparisons: Sequence[Comparison], gates: Gates) -> tuple[BrokenGate, ...]:
    """Return each gate that a row breaks."""
    found = []
    for one in comparisons:
        if gates.slower is not None and one.verdict == "SLOWER" and one.ratio > 1 + gates.slower:
            found.append(BrokenGate(name=one.name, key="slower", value=one.ratio, limit=gates.slower))
        if gates.drop_pp is not None and one.drop_pp is not None and one.drop_pp > gates.drop_pp:
            found.append(BrokenGate(name=one.name, key="drop_pp", value=one.drop_pp, limit=gates.drop_pp))
        if gates.inconclusive and one.verdict == "AMBIGUOUS":
            found.append(BrokenGate(name=one.name, key="inconclusive", value=one.ratio))
    return tuple(found)


def _anchor(row: Row, rows: Sequence[Row]) -> Row | None:
    assert row.latency is not None, "measured rows have a latency"
    return next((one for one in rows if one.name == row.latency.anchor), None)

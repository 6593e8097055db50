"""Who may be recommended: why a row is out of the race, and which limits a row in the race breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.bench.statistics import smallest_provable_drop
from trtbench.report.ratios import is_cpu
from trtbench.report.units import BYTES_PER_MB, fixed, megabytes, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.records import AccuracyRecord, Row
    from trtbench.suite import DecisionConfig

_ROLES = {
    "baseline": "a baseline, shown for comparison",
    "reference": "the reference, shown for comparison",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """The rows of a report as one decision sees them.

    `entrants` are comparable: candidates that are ok, real, scored and timed at the decision's batch size, on a GPU
    wherever one was tried. `qualified` are the entrants that provably keep every limit. `reasons` holds, for each row
    of the report in its order, why it did not qualify; empty for those that did.
    """

    entrants: tuple[Row, ...]
    qualified: tuple[Row, ...]
    reasons: tuple[str, ...]


def enter(rows: Sequence[Row], decision: DecisionConfig) -> Race:
    """Sort the rows into those that may win and those that may not."""
    on_cpu = is_decided_on_cpu(rows)
    absences = [_wrong_kind(row, decision, on_cpu=on_cpu) or _unmeasured(row, decision) for row in rows]
    reasons = [absence or "; ".join(broken_limits(row, decision)) for row, absence in zip(rows, absences, strict=True)]
    return Race(
        entrants=tuple(row for row, absence in zip(rows, absences, strict=True) if not absence),
        qualified=tuple(row for row, reason in zip(rows, reasons, strict=True) if not reason),
        reasons=tuple(reasons),
    )


def is_decided_on_cpu(rows: Sequence[Row]) -> bool:
    """Whether the candidates to rank are CPU rows: none was tried on a GPU."""
    tried = [row for row in rows if row.role == "candidate" and row.status not in {"unsupported", "skipped"}]
    return all(is_cpu(row) for row in tried)


def broken_limits(row: Row, decision: DecisionConfig) -> tuple[str, ...]:
    """Return a clause for each limit of the decision that an entrant does not provably keep."""
    return tuple(clause for _, clause in broken_by_key(row, decision))


def broken_by_key(row: Row, decision: DecisionConfig) -> tuple[tuple[str, str], ...]:
    """Return the key of each limit that an entrant does not provably keep, and a clause that says so."""
    assert row.accuracy is not None
    assert row.latency is not None
    clauses = []
    if drop_excess_pp(row, decision) >= 0:
        clauses.append(("max_drop_pp", _unproven(row.accuracy, decision)))
    if is_too_large(row, decision):
        size, limit = megabytes(row.engine_bytes), significant(decision.max_engine_mb)
        clauses.append(("max_engine_mb", f"its file is too large: {size} MB against a limit of {limit} MB"))
    p99, most = row.latency.p99_ms, decision.max_p99_ms
    if p99 is not None and most is not None and p99 > most:
        clauses.append(("max_p99_ms", f"its p99 is {significant(p99)} ms against a limit of {significant(most)} ms"))
    memory, most = row.memory_bytes, decision.max_memory_mb
    if memory is not None and most is not None and memory > most * BYTES_PER_MB:
        told = f"it takes {megabytes(memory)} MB of memory against a limit of {significant(most)} MB"
        clauses.append(("max_memory_mb", told))
    rate, least = row.throughput_ips, decision.min_throughput
    if rate is not None and least is not None and rate < least:
        told = f"it does {significant(rate)} images a second against a limit of {significant(least)}"
        clauses.append(("min_throughput", told))
    return tuple(clauses)


def drop_excess_pp(row: Row, decision: DecisionConfig) -> float:
    """Return by how many percentage points the proven drop misses the limit; it must be negative."""
    assert row.accuracy is not None
    assert row.accuracy.drop_upper_pp is not None
    return row.accuracy.drop_upper_pp - decision.max_drop_pp


def is_too_large(row: Row, decision: DecisionConfig) -> bool:
    """Whether the engine file is above the limit, if there is one."""
    if decision.max_engine_mb is None or row.engine_bytes is None:
        return False
    return row.engine_bytes > decision.max_engine_mb * BYTES_PER_MB


def _wrong_kind(row: Row, decision: DecisionConfig, *, on_cpu: bool) -> str:
    if row.role != "candidate":
        return _ROLES[row.role]
    if row.status != "ok":
        return f"{row.status}: {row.reason}" if row.reason else row.status
    if row.simulated:
        return "simulated under a test double, never ranked"
    if row.batch_size != decision.batch_size:
        return f"measured at batch {row.batch_size}, the decision is at batch {decision.batch_size}"
    if is_cpu(row) and not on_cpu:
        return "a CPU row, never ranked with GPU rows"
    return ""


def _unmeasured(row: Row, decision: DecisionConfig) -> str:
    if row.accuracy is None:
        return "not scored"
    if row.accuracy.drop_upper_pp is None:
        return "its drop against the reference was not measured"
    if row.accuracy.is_chance:
        return f"its accuracy is at chance level: {row.accuracy.correct} of {row.accuracy.total} right"
    if row.latency is None:
        return "not timed"
    if row.latency.verdict != "stable" and not is_cpu(row):
        return f"its latency is {row.latency.verdict}, so it cannot be ranked"
    return _unknown(row, decision)


def _unknown(row: Row, decision: DecisionConfig) -> str:
    """Say which figure that a limit or the objective needs was not measured."""
    assert row.latency is not None
    wanted = {
        "its file size is unknown": (row.engine_bytes, "engine_bytes", decision.max_engine_mb),
        "its p99 is unknown: fewer than 1,000 samples": (row.latency.p99_ms, "p99_ms", decision.max_p99_ms),
        "its memory is unknown": (row.memory_bytes, None, decision.max_memory_mb),
        "its throughput is unknown": (row.throughput_ips, "throughput", decision.min_throughput),
    }
    for told, (value, objective, limit) in wanted.items():
        if value is None and (decision.objective == objective or limit is not None):
            return told
    return ""


def _unproven(accuracy: AccuracyRecord, decision: DecisionConfig) -> str:
    smallest_pp = 100 * smallest_provable_drop(accuracy.total)
    clause = (
        f"its drop is not proven: it may be {fixed(accuracy.drop_upper_pp)} pp (95 % confidence)"
        f" against a limit of {fixed(decision.max_drop_pp)} pp"
        f", and the smallest drop {accuracy.total:,} images can show is {fixed(smallest_pp)} pp"
    )
    return clause + (", so score more images" if decision.max_drop_pp <= smallest_pp else "")

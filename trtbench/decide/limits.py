"""Which rows may be recommended: what keeps a row from being compared, and which limits a comparable row breaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from trtbench.bench.paired_drop import drop_upper_bound
from trtbench.decide.ratios import dense_variant, is_cpu
from trtbench.precision import NONE_IN_INT8

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trtbench.decide.ratios import Ratio
    from trtbench.rows import Row
    from trtbench.suite import DecisionConfig, Objective

LimitKey = Literal[
    "max_drop_pp",
    "max_engine_mb",
    "max_p99_ms",
    "max_memory_mb",
    "min_throughput",
    "min_fidelity_db",
    "max_score_drop",
]
Obstacle = Literal[
    "role",
    "status",
    "simulated",
    "not_int8",
    "batch_size",
    "cpu",
    "not_scored",
    "no_drop",
    "chance",
    "not_timed",
    "no_size",
    "no_p99",
    "no_memory",
    "no_throughput",
    "same_file",
]

BYTES_PER_MB = 1_000_000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLimit:
    """A limit that a row is held to; `value` is what the row has, in the unit of the limit."""

    key: LimitKey
    value: float
    limit: float

    @property
    def is_kept(self) -> bool:
        """Whether the value is within the limit; a drop that may be as large as the limit proves nothing."""
        if self.key in {"max_drop_pp", "max_score_drop"}:
            return self.value < self.limit
        return self.value >= self.limit if self.key.startswith("min_") else self.value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What keeps a row from being recommended: an obstacle to comparing it, else those of its limits that it breaks.

    `drop_upper_pp` bounds the drop of a comparable row, or `fidelity_low_db` its fidelity where there are no labels, or
    `score_drop_upper` the drop of the suite's own score;
    with those of all others compared it holds at 95 %. `ratio` is, of a row that kept every limit and was not chosen,
    its objective over the winner's.
    """

    row: Row
    drop_upper_pp: float | None = None
    fidelity_low_db: float | None = None
    score_drop_upper: float | None = None
    obstacle: Obstacle | None = None
    limits: tuple[HeldLimit, ...] = ()
    ratio: Ratio | None = None

    @property
    def broken(self) -> tuple[HeldLimit, ...]:
        """The limits that a comparable row does not provably keep."""
        return tuple(one for one in self.limits if not one.is_kept)

    @property
    def is_qualified(self) -> bool:
        """Whether the row can be compared and provably keeps every limit."""
        return self.obstacle is None and not self.broken


def assess(rows: Sequence[Row], decision: DecisionConfig) -> tuple[Assessment, ...]:
    """Sort the rows into those that may be recommended and those that may not, in their order.

    Comparable are candidates that are ok, real, scored and timed at the decision's batch size, on a GPU wherever one
    was tried; of several rows of one file the first: what differs between them is noise.
    """
    obstacles = _obstacles(rows, decision)
    engines, dense = _together(rows, obstacles), dense_variant(rows)
    return tuple(
        Assessment(row=row, obstacle=obstacle)
        if obstacle
        else _held_to_limits(row, decision, engines=engines, dense=dense)
        for row, obstacle in zip(rows, obstacles, strict=True)
    )


def _obstacles(rows: Sequence[Row], decision: DecisionConfig) -> list[Obstacle | None]:
    on_cpu = is_decided_on_cpu(rows)
    found = [_wrong_kind(row, decision, on_cpu=on_cpu) or _unmeasured(row, decision) for row in rows]
    return _once_a_file(rows, found)


def _once_a_file(rows: Sequence[Row], obstacles: Sequence[Obstacle | None]) -> list[Obstacle | None]:
    """Keep rows out of the comparison whose file a comparable row before them has."""
    seen: set[str] = set()
    found: list[Obstacle | None] = []
    for row, obstacle in zip(rows, obstacles, strict=True):
        is_again = not obstacle and row.engine_sha256 in seen
        found.append("same_file" if is_again else obstacle)
        if not found[-1] and row.engine_sha256 is not None:
            seen.add(row.engine_sha256)
    return found


def held_against(rows: Sequence[Row], decision: DecisionConfig) -> tuple[Row, ...]:
    """Return the rows with what a decision makes of them: how far each is beyond its limit, how many it compares."""
    together = _together(rows, _obstacles(rows, decision))
    return tuple(replace(row, over_limit_pp=_over_pp(row, decision), together=max(together, 1)) for row in rows)


def _over_pp(row: Row, decision: DecisionConfig) -> float | None:
    drop_pp = None if row.accuracy is None else row.accuracy.drop_pp
    return None if drop_pp is None or drop_pp <= decision.max_drop_pp else drop_pp - decision.max_drop_pp


def shown_bound_pp(row: Row, rows: Sequence[Row]) -> float | None:
    """Return the points that a row of these lost at most, as the decision held them against its limit."""
    if row.accuracy is None or row.accuracy.drop_upper_pp is None:
        return None
    return bound_pp(row, engines=row.together, dense=dense_variant(rows))


def _together(rows: Sequence[Row], obstacles: Sequence[Obstacle | None]) -> int:
    return looked_at([row for row, obstacle in zip(rows, obstacles, strict=True) if not obstacle])


def looked_at(rows: Sequence[Row]) -> int:
    """Return how many engines a choice among these rows looks at; two rows of one file are one."""
    return len({row.engine_sha256 or row.name for row in rows})


def confidence_each(engines: int) -> float:
    """Return the confidence of each bound, at which all of them hold together at 95 % (Bonferroni).

    Without it the best of 24 engines that all lost a little too much passes a limit in two of five runs.
    """
    return 1 - (1 - CONFIDENCE) / max(engines, 1)


def is_decided_on_cpu(rows: Sequence[Row]) -> bool:
    """Whether the candidates to rank are CPU rows: none was tried on a GPU."""
    tried = [row for row in rows if row.role == "candidate" and row.status not in {"unsupported", "skipped", "built"}]
    return all(is_cpu(row) for row in tried)


def _held_to_limits(row: Row, decision: DecisionConfig, *, engines: int, dense: str | None) -> Assessment:
    """Hold a comparable row to each limit of the decision; a score of the suite's own stands in for fidelity."""
    fidelity = row.fidelity
    score = None if fidelity is None else fidelity.score
    one = Assessment(
        row=row,
        drop_upper_pp=None if row.accuracy is None else bound_pp(row, engines=engines, dense=dense),
        fidelity_low_db=None if fidelity is None else fidelity.low_db(confidence=confidence_each(engines)),
        score_drop_upper=None if score is None else score.drop_upper(engines=engines),
    )
    values: Mapping[LimitKey, float | None] = {
        "max_drop_pp": one.drop_upper_pp,
        "min_fidelity_db": one.fidelity_low_db if score is None else None,
        "max_score_drop": one.score_drop_upper,
        **{key: value_of(row) for key, value_of in _VALUES.items()},
    }
    found = tuple(
        HeldLimit(key=key, value=value, limit=limit)
        for key, value in values.items()
        if value is not None and (limit := getattr(decision, key)) is not None
    )
    return replace(one, limits=found)


def bound_pp(row: Row, *, engines: int, dense: str | None) -> float:
    """Return the points that a comparable row lost at most; the reference itself has none to lose."""
    accuracy = row.accuracy
    assert accuracy is not None
    assert accuracy.drop_upper_pp is not None
    if accuracy.lost is None or accuracy.gained is None:  # a report from before the counts were kept
        return accuracy.drop_upper_pp
    if (row.variant, row.precision) == (dense, "fp32") and accuracy.agreement == 1:
        return 0.0
    confidence = confidence_each(engines)
    return 100 * drop_upper_bound(accuracy.lost, accuracy.gained, accuracy.total, confidence=confidence)


def _megabytes(size: int | None) -> float | None:
    return None if size is None else size / BYTES_PER_MB


_VALUES: Mapping[LimitKey, Callable[[Row], float | None]] = {
    "max_engine_mb": lambda row: _megabytes(row.engine_bytes),
    "max_p99_ms": lambda row: None if row.latency is None else row.latency.p99_ms,
    # Where it computes: a GPU's memory and a host's are two things, and what is not known breaks no limit unseen.
    "max_memory_mb": lambda row: _megabytes(row.host_memory_bytes if is_cpu(row) else row.device_memory_bytes),
    "min_throughput": lambda row: row.throughput_ips,
}
# What a row must have been measured for, where a limit or the objective needs it
_NEEDS: Mapping[Obstacle, tuple[LimitKey, Objective | None]] = {
    "no_size": ("max_engine_mb", "engine_bytes"),
    "no_p99": ("max_p99_ms", "p99_ms"),
    "no_memory": ("max_memory_mb", None),
    "no_throughput": ("min_throughput", "throughput"),
}


def _wrong_kind(row: Row, decision: DecisionConfig, *, on_cpu: bool) -> Obstacle | None:
    if row.role != "candidate":
        return "role"
    if row.status != "ok":
        return "status"
    if row.simulated:
        return "simulated"
    if row.achieved is not None and NONE_IN_INT8 in row.achieved:
        return "not_int8"
    if row.batch_size != decision.batch_size:
        return "batch_size"
    return "cpu" if is_cpu(row) and not on_cpu else None


def _unmeasured(row: Row, decision: DecisionConfig) -> Obstacle | None:
    if row.accuracy is None and row.fidelity is None:
        return "not_scored"
    if row.accuracy is not None and row.accuracy.drop_upper_pp is None:
        return "no_drop"
    if row.accuracy is not None and row.accuracy.is_chance:
        return "chance"
    if row.latency is None:
        return "not_timed"
    return _lacking(row, decision)


def _lacking(row: Row, decision: DecisionConfig) -> Obstacle | None:
    for obstacle, (key, objective) in _NEEDS.items():
        is_needed = getattr(decision, key) is not None or decision.objective == objective
        if is_needed and _VALUES[key](row) is None:
            return obstacle
    return None

"""The answer as a card, and each row's part in it in a word: what a page shows first. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.decide.limits import assess
from trtbench.decide.ratios import dense_fp32_of, eager_of, p50_ms, speed_up
from trtbench.report.units import decibels, fixed, megabytes, percent, significant
from trtbench.report.words import UNITS, device_words
from trtbench.suite import DecisionConfig, options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trtbench.decide.limits import Assessment, HeldLimit, LimitKey
    from trtbench.report.document import Recommendation
    from trtbench.rows import Row

RECOMMENDED = "recommended"
_OF_LIMITS: Mapping[LimitKey, str] = {
    "max_drop_pp": "drop",
    "max_engine_mb": "too large",
    "max_p99_ms": "p99",
    "max_memory_mb": "memory",
    "min_throughput": "throughput",
    "min_fidelity_db": "fidelity",
    "max_score_drop": "score",
}
_OF_OBSTACLES = {
    "simulated": "simulated",
    "not_int8": "not INT8",
    "cpu": "CPU",
    "not_scored": "not scored",
    "no_drop": "not scored",
    "chance": "chance",
    "not_timed": "not timed",
    "no_size": "no size",
    "no_p99": "no p99",
    "no_memory": "no memory",
    "no_throughput": "no throughput",
    "same_file": "same file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What became of a row: in a word, and whether it is out of the question rather than beaten or a baseline."""

    word: str
    is_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The row to ship, or the closest where nothing qualifies, its figures as (value, what it is) and its limits.

    `limits` are (kept, what was held to what).
    """

    verb: str
    row: Row
    place: str
    figures: tuple[tuple[str, str], ...]
    limits: tuple[tuple[bool, str], ...]


def card(rows: Sequence[Row], decision: Recommendation) -> Card | None:
    """Return the card of a report; None where no row could be compared."""
    found = {one.row.name: one for one in assess(rows, _asked(decision))}
    shown = found.get(decision.winner or decision.closest or "")
    if shown is None:
        return None
    return Card(
        verb="Ship" if decision.winner else "Nothing qualifies; closest is",
        row=shown.row,
        place=f"on {device_words(shown.row)}",
        figures=tuple(_figures(shown, rows)),
        limits=tuple((one.is_kept, _held(one)) for one in shown.limits),
    )


def parts(rows: Sequence[Row], decision: Recommendation) -> tuple[Part, ...]:
    """Return what became of each row, in their order."""
    return tuple(_part(one, decision) for one in assess(rows, _asked(decision)))


def by_answer(became: Sequence[tuple[Row, Part]], decision: Recommendation) -> list[tuple[Row, Part]]:
    """Sort rows as a reader wants them: the winner, what it beat, baselines, what is out, other batch sizes."""

    def place(pair: tuple[Row, Part]) -> tuple[bool, bool, bool, bool, float]:
        row, part = pair
        time = row.latency.p50_ms if row.latency else 0.0
        is_other = row.batch_size != decision.batch_size
        return (row.name != decision.winner, is_other, part.is_out, row.role != "candidate", time)

    return sorted(became, key=place)


def _asked(decision: Recommendation) -> DecisionConfig:
    said = {key: getattr(decision, key) for key in ("batch_size", "objective", *UNITS)}
    return options(DecisionConfig, **{key: value for key, value in said.items() if value is not None})


def _part(one: Assessment, decision: Recommendation) -> Part:
    row = one.row
    if one.obstacle is None and one.broken:
        return Part(word=", ".join(_why_out(limit, row) for limit in one.broken), is_out=True)
    if one.obstacle is None:
        words = {decision.winner: RECOMMENDED, decision.runner_up: "runner-up"}
        return Part(word=words.get(row.name, "behind"))
    told = {"role": row.role, "status": row.status, "batch_size": f"batch {row.batch_size}"}
    word = told.get(one.obstacle) or _OF_OBSTACLES[one.obstacle]
    return Part(word=word, is_out=one.obstacle not in {"role", "batch_size"})


def _why_out(broken: HeldLimit, row: Row) -> str:
    """Return the word for a limit that a row breaks; a drop that was counted to be within it is unproven."""
    is_within = row.accuracy is not None and (row.accuracy.drop_pp or 0.0) <= broken.limit
    return "unproven" if broken.key == "max_drop_pp" and is_within else _OF_LIMITS[broken.key]


def _figures(one: Assessment, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    row = one.row
    yield f"{significant(p50_ms(row))} ms", f"median, batch {row.batch_size}"
    dense = dense_fp32_of(row, rows)
    for base, what in ((dense, "dense fp32"), (eager_of(row, rows), "PyTorch eager")):
        if base is not None and base is not row and (ratio := speed_up(row, base)) is not None:
            yield f"{fixed(ratio)}x", f"as fast as {what}"
    if row.engine_bytes is not None:
        beside = f", dense fp32 has {megabytes(dense.engine_bytes)}" if dense and dense is not row else ""
        yield f"{megabytes(row.engine_bytes)} MB", f"file{beside}"
    if row.fidelity is not None and (score := row.fidelity.score) is not None:
        yield significant(score.mean), f"score of {row.fidelity.images:,} images"
        yield significant(score.drop), f"drop, at most {significant(one.score_drop_upper)} (95 % confidence)"
    if row.fidelity is not None:
        low = f", at least {decibels(one.fidelity_low_db)} (95 % confidence)" if row.fidelity.snr_db is not None else ""
        yield decibels(row.fidelity.snr_db), f"fidelity on {row.fidelity.images:,} images{low}"
    if row.accuracy is not None:
        yield f"{percent(row.accuracy.top1)} %", f"top-1 of {row.accuracy.total:,} images"
    if row.accuracy is not None and row.accuracy.drop_pp is not None:
        yield f"{fixed(row.accuracy.drop_pp)} pp", f"drop, at most {fixed(one.drop_upper_pp)} (95 % confidence)"


def _held(limit: HeldLimit) -> str:
    if limit.key == "max_drop_pp":
        return f"drop at most {fixed(limit.value)} of {fixed(limit.limit)} pp"
    if limit.key == "min_fidelity_db":
        return f"fidelity at least {decibels(limit.value)} of {significant(limit.limit)} dB"
    if limit.key == "max_score_drop":
        return f"drop of the score at most {significant(limit.value)} of {significant(limit.limit)}"
    than = "of at least" if limit.key == "min_throughput" else "of"
    return f"{significant(limit.value)} {than} {significant(limit.limit)} {UNITS[limit.key]}"

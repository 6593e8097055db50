"""The recommendation in words: a headline, its reasons, why each other row lost, and what would change the choice."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING

from trtbench.bench.paired_drop import smallest_provable_drop
from trtbench.decide.choose import MoreSamples, OtherLimit, OtherObjective, choose
from trtbench.decide.limits import bound_pp, confidence_each
from trtbench.decide.ratios import dense_variant, is_cpu, p50_ms
from trtbench.report.document import Loser, Recommendation
from trtbench.report.units import decibels, fixed, megabytes, percent, significant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trtbench.decide.choose import Change, Choice
    from trtbench.decide.compare import BrokenGate
    from trtbench.decide.limits import Assessment, HeldLimit, LimitKey, Obstacle
    from trtbench.decide.rank import Ranking
    from trtbench.decide.ratios import PairedRatio, Ratio
    from trtbench.rows import AccuracyRecord, Row
    from trtbench.suite import DecisionConfig, Objective


_OBJECTIVES: Mapping[Objective, str] = {
    "p50_ms": "the median latency",
    "p99_ms": "the p99",
    "throughput": "the throughput",
    "engine_bytes": "the size of the file",
}
# objectives that are not worded as "takes 1.2 times as long"
_FIGURES: Mapping[Objective, str] = {
    "engine_bytes": "the bytes",
    **{one: words for one, words in _OBJECTIVES.items() if one not in {"p50_ms", "engine_bytes"}},
}
UNITS: Mapping[LimitKey, str] = {
    "max_drop_pp": "pp",
    "max_engine_mb": "MB",
    "max_p99_ms": "ms at p99",
    "max_memory_mb": "MB of memory",
    "min_throughput": "images/s",
    "min_fidelity_db": "dB of fidelity, proven",
    "max_score_drop": "of the score",
}
_CLAUSES: Mapping[LimitKey, str] = {
    "max_engine_mb": "its file is too large: {value} MB against a limit of {limit} MB",
    "max_p99_ms": "its p99 is {value} ms against a limit of {limit} ms",
    "max_memory_mb": "it takes {value} MB of memory against a limit of {limit} MB",
    "min_throughput": "it does {value} images a second against a limit of {limit}",
}
_ROLES = {"baseline": "a baseline, shown for comparison", "reference": "the reference, shown for comparison"}
_OBSTACLES: Mapping[Obstacle, str] = {
    "simulated": "simulated under a test double, never ranked",
    "not_int8": "asked for in INT8, it computes in float: ship FP32, which loses nothing",
    "cpu": "a CPU row, never ranked with GPU rows",
    "not_scored": "not scored",
    "no_drop": "its drop against the reference was not measured",
    "not_timed": "not timed",
    "no_size": "its file size is unknown",
    "no_p99": "its p99 is unknown: fewer than 1,000 samples",
    "no_memory": "its memory is unknown",
    "no_throughput": "its throughput is unknown",
}


def recommend(rows: Sequence[Row], decision: DecisionConfig, *, paired: PairedRatio | None = None) -> Recommendation:
    """Choose the row to ship, as `decide.choose` does, and say it."""
    return in_words(rows, choose(rows, decision, paired=paired))


def in_words(rows: Sequence[Row], choice: Choice) -> Recommendation:
    """Say a choice among these rows as the report keeps it, its rows by their names."""
    decision, ranking = choice.decision, choice.ranking
    ratio = ranking.ratio if ranking else None
    has_score = any(row.fidelity is not None and row.fidelity.score is not None for row in rows)
    return Recommendation(
        batch_size=decision.batch_size,
        objective=decision.objective,
        max_drop_pp=decision.max_drop_pp,
        max_engine_mb=decision.max_engine_mb,
        max_p99_ms=decision.max_p99_ms,
        max_memory_mb=decision.max_memory_mb,
        min_throughput=decision.min_throughput,
        min_fidelity_db=decision.min_fidelity_db if any(row.fidelity for row in rows) and not has_score else None,
        max_score_drop=decision.max_score_drop if has_score else None,
        sentence=_ship(choice, ranking.winner) if ranking else _nothing_qualifies(rows, choice),
        reasons=tuple(_reasons(choice)),
        winner=ranking.winner.name if ranking else None,
        runner_up=ranking.runner_up.name if ranking and ranking.runner_up else None,
        closest=choice.closest.row.name if choice.closest else None,
        separable=ranking.separable if ranking else None,
        undecided=tuple(row.name for row in ranking.undecided) if ranking else (),
        ratio=ratio.value if ratio else None,
        ratio_ci95=ratio.ci95 if ratio else None,
        pareto=tuple(row.name for row in choice.pareto),
        losers=tuple(Loser(name=one.row.name, reason=_reason(one, choice)) for one in choice.losers),
        what_if=tuple(_change(change, choice) for change in choice.changes),
        engine_path=ranking.winner.engine_path if ranking else None,
    )


def file_line(decision: Recommendation, *, run: str = "RUN") -> str:
    """Return where the winner's file is and how to run it; "" where there is none."""
    if decision.engine_path is None:
        return ""
    return f"Its file: {decision.engine_path}. Run it: trtbench ship {shlex.quote(run)} --output bundle"


def look_words(choice: Choice, *, number: int, engines: int) -> tuple[str, ...]:
    """Say that other engines were looked at on this test split before, and what is proven over all of them.

    Args:
        choice: of this run.
        number: of this look.
        engines: that all looks so far were at, those of this run among them.
    """
    if engines <= choice.engines:
        return ()
    told = (
        f"Look {number} at this test split: {engines} engines were compared on it in all, {choice.engines} in this run."
    )
    if choice.ranking is None or choice.ranking.winner.accuracy is None:
        return (told,)
    winner, limit = choice.ranking.winner, choice.decision.max_drop_pp
    bound = bound_pp(winner, engines=engines, dense=dense_variant([one.row for one in choice.assessments]))
    proof = "which is within" if bound < limit else "so it is no longer proven to be within"
    over_all = (
        f"Over all of them the drop of {short_name(winner)} is {fixed(bound)} pp at most, {proof} the limit of"
        f" {fixed(limit)} pp: what is tried until it passes, passes by chance. Images that no run has seen settle it."
    )
    return (f"{told} {over_all}",)


def short_name(row: Row) -> str:
    """Return the row's name within one backend, device and batch size."""
    return f"{row.variant} {row.shown_precision}"


def device_words(row: Row) -> str:
    """Return the row's device as it stands in a sentence."""
    return "the CPU" if is_cpu(row) else row.device


def ratio_words(ratio: Ratio) -> str:
    """Return a ratio as in "takes 1.38 times (95 % interval 1.37 to 1.40) as long"."""
    ends = ratio.ci95
    certainty = f"95 % interval {fixed(ends[0])} to {fixed(ends[1])}" if ends else "medians, not timed side by side"
    return f"{fixed(ratio.value)} times ({certainty})"


def row_in_brief(row: Row) -> str:
    """Return a row's name and its two main figures on one line."""
    facts = []
    if row.latency is not None:
        facts.append(f"p50 {significant(row.latency.p50_ms)} ms, p90 {significant(row.latency.p90_ms)} ms")
    if row.accuracy is not None:
        low, high = row.accuracy.ci95
        facts.append(f"top-1 {percent(row.accuracy.top1)} % ({percent(low)} to {percent(high)})")
    if row.fidelity is not None and row.fidelity.score is not None:
        facts.append(f"score {significant(row.fidelity.score.mean)}")
    if row.fidelity is not None:
        facts.append(f"fidelity {decibels(row.fidelity.snr_db)}")
    return f"{row.name}: {', '.join(facts) or row.status}"


def gate_clause(broken: BrokenGate) -> str:
    """Say which row of a comparison breaks a gate, and by what."""
    if broken.limit is None:
        return f"{broken.name} is ambiguous"
    if broken.key == "slower":
        limit = significant(100 * broken.limit)
        return f"{broken.name} takes {fixed(broken.value)} times as long (limit {limit} %)"
    return f"{broken.name} lost {fixed(broken.value)} pp of top-1 (limit {significant(broken.limit)} pp)"


def _ship(choice: Choice, winner: Row) -> str:
    facts = [f"{significant(p50_ms(winner))} ms"]
    if choice.dense is not None:
        facts.append(f"{fixed(choice.dense.ratio.value)}x as fast as {short_name(choice.dense.row)}")
    if winner.engine_bytes is not None:
        facts.append(f"{megabytes(winner.engine_bytes)} MB")
    (assessed,) = (one for one in choice.assessments if one.row is winner)
    facts.append(_worth(winner, assessed, choice.decision))
    return f"Ship {short_name(winner)} ({_place(winner)}): {', '.join(facts)}."


def _worth(row: Row, assessed: Assessment, decision: DecisionConfig) -> str:
    """Say what a row gets right and may lose; without labels how near it comes to the float network."""
    if row.fidelity is not None and (score := row.fidelity.score) is not None:
        most, allowed = significant(assessed.score_drop_upper), significant(decision.max_score_drop)
        return f"score {significant(score.mean)} (drop at most {most}, limit {allowed})"
    if row.fidelity is not None:
        low, limit = decibels(assessed.fidelity_low_db), significant(decision.min_fidelity_db)
        told = f"fidelity {decibels(row.fidelity.snr_db)}"
        return told if row.fidelity.snr_db is None else f"{told} (at least {low}, limit {limit})"
    assert row.accuracy is not None, "a comparable row is scored"
    drop = f"drop at most {fixed(assessed.drop_upper_pp)} pp, limit {fixed(decision.max_drop_pp)}"
    return f"top-1 {percent(row.accuracy.top1)} % ({drop})"


def _reasons(choice: Choice) -> Iterator[str]:
    """Yield what the headline rests on, a sentence each: where nothing qualifies each limit that the closest breaks."""
    ranking, closest = choice.ranking, choice.closest
    if closest is not None:
        for limit in closest.broken:
            yield f"{short_name(closest.row)}: {_limit_clause(limit, closest.row, choice)}."
    if ranking is None:
        return
    yield _against_runner_up(ranking, choice.decision)
    yield from _other_order(ranking, choice)
    if (int8 := choice.slower_int8) is not None:
        slower = f"{short_name(int8.row)} takes {ratio_words(int8.ratio)} as long as {short_name(ranking.winner)}"
        told = "" if int8.row is ranking.runner_up else f": {slower}"
        yield f"INT8 is slower than FP32 here{told}."
    if ranking.undecided:
        yield _undecided(ranking, choice.decision)
    if choice.engines > 1:
        has_score = any(one.score_drop_upper is not None for one in choice.assessments)
        has_fidelity = any(one.fidelity_low_db is not None for one in choice.assessments)
        of = "scores' drops" if has_score else "fidelities" if has_fidelity else "drops"
        yield f"The bounds of the {of} of all {choice.engines} engines hold together at 95 % confidence."


def _nothing_qualifies(rows: Sequence[Row], choice: Choice) -> str:
    closest = choice.closest
    if closest is None:
        statuses = Counter(row.status for row in rows if row.role == "candidate" and row.status != "ok")
        counts = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
        batch = f"batch {choice.decision.batch_size}{f' ({counts})' if counts else ''}"
        return f"Nothing qualifies: no candidate has a score and a rankable time at {batch}."
    count = len(choice.compared)
    first, *others = closest.broken
    more = f" and breaks {len(others)} more limit{'s' * (len(others) > 1)}" if others else ""
    return (
        f"Nothing qualifies: of {count} candidate{'s' * (count > 1)} ({_place(closest.row)}) the closest is"
        f" {short_name(closest.row)}, {_brief(first)}{more}."
    )


def _brief(broken: HeldLimit) -> str:
    """Say a limit that is broken in as few words as a headline has."""
    value, limit = significant(broken.value), significant(broken.limit)
    if broken.key == "max_drop_pp":
        return f"which may lose {fixed(broken.value)} pp (limit {fixed(broken.limit)})"
    return f"with {value} {UNITS[broken.key]} (limit {limit})"


def _reason(loser: Assessment, choice: Choice) -> str:
    if loser.obstacle == "same_file":
        first = next(row for row in choice.compared if row.engine_sha256 == loser.row.engine_sha256)
        return f"the same file as {short_name(first)}: what differs between the two is noise"
    if loser.obstacle is not None:
        return _obstacle(loser.obstacle, loser.row, choice.decision)
    if loser.broken:
        return "; ".join(_limit_clause(limit, loser.row, choice) for limit in loser.broken)
    assert choice.ranking is not None, "a row qualified"
    assert loser.ratio is not None, "it is held against the winner"
    winner = choice.ranking.winner
    if choice.decision.objective in _FIGURES:
        return f"{_behind(loser.ratio.value, choice.decision)} of {short_name(winner)}"
    slower = f"takes {ratio_words(loser.ratio)} as long as {short_name(winner)}"
    is_level = any(loser.row is row for row in choice.ranking.level)
    return f"{slower}, so not separable, and {_sizes(loser.row, winner)}" if is_level else slower


def _obstacle(obstacle: Obstacle, row: Row, decision: DecisionConfig) -> str:
    if obstacle == "role":
        return _ROLES[row.role]
    if obstacle == "status":
        return f"{row.status}: {row.reason}" if row.reason else row.status
    if obstacle == "batch_size":
        return f"measured at batch {row.batch_size}, the decision is at batch {decision.batch_size}"
    if obstacle == "chance":
        assert row.accuracy is not None
        right = f"{row.accuracy.correct} of {row.accuracy.total} right"
        return f"its accuracy is at chance level: {right} (wrong preprocessing or labels, or pruned too far untrained)"
    return _OBSTACLES[obstacle]


def _limit_clause(broken: HeldLimit, row: Row, choice: Choice) -> str:
    value, limit = significant(broken.value), significant(broken.limit)
    if broken.key in _CLAUSES:
        return _CLAUSES[broken.key].format(value=value, limit=limit)
    if broken.key == "max_score_drop":
        assert row.fidelity is not None, "its limit is of rows that were compared"
        assert row.fidelity.score is not None, "its limit is of rows with a score"
        return (
            f"its score drops by {significant(row.fidelity.score.drop)}, {value} at most ({_confidence(choice)}),"
            f" against a limit of {limit}"
        )
    if broken.key == "min_fidelity_db":
        assert row.fidelity is not None, "its limit is of rows that were compared"
        return (
            f"its fidelity is {decibels(row.fidelity.snr_db)} ({row.fidelity.worst}), {decibels(broken.value)} at least"
            f" ({_confidence(choice)}), against a limit of {limit} dB"
        )
    assert row.accuracy is not None, "a comparable row is scored"
    return _unproven(broken, row.accuracy, choice)


def _unproven(broken: HeldLimit, accuracy: AccuracyRecord, choice: Choice) -> str:
    if accuracy.drop_pp is not None and accuracy.drop_pp > broken.limit:
        return f"it lost {fixed(accuracy.drop_pp)} pp, more than the limit of {fixed(broken.limit)} pp"
    smallest_pp = 100 * smallest_provable_drop(accuracy.total, confidence=confidence_each(choice.engines))
    clause = (
        f"its drop is not proven: it may be {fixed(broken.value)} pp ({_confidence(choice)})"
        f" against a limit of {fixed(broken.limit)} pp"
        f", and the smallest drop {accuracy.total:,} images can show is {fixed(smallest_pp)} pp"
    )
    return clause + (", so score more images" if broken.limit <= smallest_pp else "")


def _change(change: Change, choice: Choice) -> str:
    name = short_name(change.row)
    if isinstance(change, OtherLimit):
        limit = getattr(choice.decision, change.key)
        kept = fixed(limit) if change.key == "max_drop_pp" else significant(limit)
        verb = "win" if choice.ranking else "qualify"
        return f"With {change.key} {significant(change.value)} instead of {kept}, {name} would {verb}."
    if isinstance(change, OtherObjective):
        return f"By {_OBJECTIVES[change.objective]} (objective {change.objective}), {name} would win."
    assert isinstance(change, MoreSamples)
    assert choice.ranking is not None, "a row is level with the winner"
    return (
        f"Whether {name} should win over {short_name(choice.ranking.winner)} is open: more samples"
        " (bench.budget_s, bench.processes) may tell."
    )


def _other_order(ranking: Ranking, choice: Choice) -> Iterator[str]:
    """Yield why a row whose median is lower was not chosen: medians hold what the machine did meanwhile."""
    ours = ranking.winner.latency
    if choice.decision.objective != "p50_ms" or ours is None:
        return
    for one in choice.losers:
        theirs = one.row.latency
        if one.ratio is not None and one.ratio.value > 1 and theirs is not None and theirs.p50_ms < ours.p50_ms:
            yield (
                f"{short_name(one.row)} has the lower median alone ({significant(theirs.p50_ms)} against"
                f" {significant(ours.p50_ms)} ms), which the machine's state shifts; timed side by side it takes"
                f" {ratio_words(one.ratio)} as long, and that is what counts."
            )


def _undecided(ranking: Ranking, decision: DecisionConfig) -> str:
    first, *others = [short_name(row) for row in ranking.undecided]
    names = f"{first} and {len(others)} more" if others else first
    margin = significant(100 * decision.margin)
    return (
        f"Whether {names} {'are' if others else 'is'} as fast within {margin} % is open, so the fastest side by side is"
        " chosen: a larger bench.budget_s or a quieter machine may decide it."
    )


def _behind(ratio: float, decision: DecisionConfig) -> str:
    """Say how far behind a row is; a throughput is the inverse of what the objective minimises."""
    value = 1 / ratio if decision.objective == "throughput" else ratio
    return f"has {fixed(value)} times {_FIGURES[decision.objective]}"


def _place(row: Row) -> str:
    """Say where a row ran, in at most four words more than its backend and batch size."""
    told = [word for word in device_words(row).split() if word not in {"NVIDIA", "GeForce"}]
    on = "" if "cpu" in row.backend else f" on {' '.join(told[:3])}"
    return f"{row.backend}{on}, batch {row.batch_size}"


def _confidence(choice: Choice) -> str:
    """Say how sure the bounds are; of several engines they hold together."""
    return f"95 % confidence{f' over {choice.engines} engines' if choice.engines > 1 else ''}"


def _against_runner_up(ranking: Ranking, decision: DecisionConfig) -> str:
    winner, runner_up, ratio = ranking.winner, ranking.runner_up, ranking.ratio
    if runner_up is None or ratio is None:
        return "No other candidate qualifies."
    name = f"The runner-up, {short_name(runner_up)},"
    if decision.objective == "engine_bytes" and not ranking.separable:
        return f"{name} has as many bytes and is slower."
    if decision.objective in _FIGURES:
        return f"{name} {_behind(ratio.value, decision)}."
    if ranking.separable is False:
        return f"{name} cannot be told apart, taking {ratio_words(ratio)} as long, but {_sizes(runner_up, winner)}."
    if ratio.value < 1:
        margin = f"within the margin of {significant(100 * decision.margin)} %"
        return f"{name} takes {ratio_words(ratio)} as long, {margin}, but {_sizes(runner_up, winner)}."
    return f"{name} takes {ratio_words(ratio)} as long."


def _sizes(loser: Row, winner: Row) -> str:
    if loser.engine_bytes is None or winner.engine_bytes is None or loser.engine_bytes == winner.engine_bytes:
        return "is not smaller"
    more = loser.engine_bytes - winner.engine_bytes
    sizes = [megabytes(size) for size in (loser.engine_bytes, winner.engine_bytes)]
    word, doubt = ("more", "") if more > 0 else ("fewer", " and is not proven to be as fast within the margin")
    if sizes[0] == sizes[1]:
        return f"has {abs(more):,} bytes {'more' if more > 0 else 'less'}{doubt}"
    return f"has {word} bytes ({sizes[0]} MB against {sizes[1]} MB){doubt}"

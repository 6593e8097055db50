"""From stored runs: two compared, re-timed where their engines are at hand, and one decided under other limits."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from trtbench.bench.records import EngineFile
from trtbench.bench.spread import NO_POOL
from trtbench.bench.summary import pool_of_rows, timed_ratio
from trtbench.bench.versus import PAIRS, PROCESS_PAIRS, Outcome, judge, outcome, time_together
from trtbench.decide.compare import (
    Comparison,
    Matched,
    compare_stored,
    is_same_engine,
    match_rows,
    runtime_versions,
    top1_drop_pp,
    unlike_machines,
)
from trtbench.environment import collect_environment
from trtbench.errors import ConfigError, RowError
from trtbench.foreign import MISFITS, read_json
from trtbench.jsonable import to_jsonable
from trtbench.progress import Event, Listener, nobody
from trtbench.report.disk import read_blocks
from trtbench.report.document import read_report
from trtbench.report.words import recommend
from trtbench.suite import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from trtbench.bench.interleave import Timing
    from trtbench.bench.spread import Interval, Pool
    from trtbench.bench.versus import Verdict
    from trtbench.decide.ratios import PairedRatio
    from trtbench.report.document import Recommendation, Report
    from trtbench.rows import Row
    from trtbench.suite import DecisionConfig


def decide_again(run: Path, changed: Callable[[Mapping[str, Any]], DecisionConfig]) -> Recommendation:
    """Decide a run under other limits.

    Args:
        run: a run's folder, or its report.json; without the raw samples the ratios in the report serve.
        changed: given the limits the run was decided under, returns those to use now.

    Raises:
        ConfigError: there is no report, or a limit cannot be.
    """
    report = read_report(run)
    folder = run if run.is_dir() else run.parent
    blocks = {row.name: read_blocks(folder, row) for row in report.rows if row.latency is not None}
    return recommend(report.rows, changed(report.suite.get("decision", {})), paired=paired_from(report.rows, blocks))


def paired_from(
    rows: Sequence[Row],
    blocks: Mapping[str, Timing | None],
    *,
    repeated: Mapping[str, Timing | None] | None = None,
) -> PairedRatio:
    """Answer paired ratios from the raw blocks of a run, by row name.

    Rows of the repeated builds, which were measured side by side once more, pair with one another only.
    """
    again = repeated or {}
    pools = [pools_of(rows, taken) for taken in (blocks, again)]

    def ratio(first: Row, second: Row) -> Interval | None:
        is_final = first.name in again
        if is_final != (second.name in again):
            return None
        taken, of = (again, pools[1]) if is_final else (blocks, pools[0])
        both = of.get(_pooled(first), NO_POOL), of.get(_pooled(second), NO_POOL)
        return timed_ratio(taken.get(first.name), taken.get(second.name), pools=both)

    return ratio


def pools_of(rows: Sequence[Row], blocks: Mapping[str, Timing | None]) -> dict[tuple[str, int], Pool]:
    """Pool the rows of each runtime at each batch size: how much processes differ is a matter of the runtime."""
    timed: dict[tuple[str, int], dict[str, Timing]] = {}
    for row in rows:
        if (taken := blocks.get(row.name)) is not None:
            timed.setdefault(_pooled(row), {})[row.name] = taken
    return {key: pool_of_rows(of_key) for key, of_key in timed.items()}


def _pooled(row: Row) -> tuple[str, int]:
    return row.backend, row.batch_size


def compare_reports(
    first: Report,
    second: Report,
    *,
    engines: Sequence[Path],
    folder: Path,
    across_machines: bool = False,
    again: bool = False,
    pairs: int = PAIRS,
    process_pairs: int = PROCESS_PAIRS,
    matched: Matched | None = None,
    tell: Listener = nobody,
) -> tuple[tuple[Comparison, ...], Matched]:
    """Compare every row that was measured in both reports.

    Engines are re-timed when both files are in one of the folders and the runtimes are those of both reports; then
    today's machine decides. Otherwise the stored samples do, each against the anchor of its own run.

    Args:
        first: the report that stands for before.
        second: the report that stands for after.
        engines: folders in which engine files are looked for by their sha256.
        folder: for the workers' logs.
        across_machines: compare even where the machines are unlike; nothing is re-timed then.
        again: re-time engines that are one and the same file too.
        pairs: block pairs at least.
        process_pairs: process pairs at least.
        matched: which rows to compare; by default those of one name.
        tell: told of progress.

    Raises:
        ConfigError: no row is in both, or the machines are unlike and `across_machines` is False.
    """
    unlike = unlike_machines(first.environment, second.environment)
    if unlike and not across_machines:
        cure = "add --across-machines to compare stored samples all the same, or `trtbench merge` to see both"
        raise ConfigError("the reports", expected="one machine", got="; ".join(unlike), cure=cure)
    matched = match_rows(first.rows, second.rows) if matched is None else matched
    if not matched.pairs:
        cure = "compare two runs of one suite"
        raise ConfigError("the reports", expected="rows of the same names", got="none", cure=cure)
    files = {} if unlike or not _runtimes_are_here(first, second) else find_engines(engines)
    found = []
    for number, (before, after) in enumerate(matched.pairs):
        if is_same_engine(before, after) and not again:
            how = "the same engine file with the same settings"
            found.append(_compared(before, after, "SAME", 1.0, (1.0, 1.0), how=how))
            continue
        share, sizes = (number, len(matched.pairs)), (pairs, process_pairs)
        result = _retimed(before, after, files=files, folder=folder, sizes=sizes, share=share, tell=tell)
        if result is None:
            ratio, how = compare_stored(before, after, (first.rows, second.rows))
            verdict = "AMBIGUOUS" if ratio.ci95 is None else judge(*ratio.ci95)
            found.append(_compared(before, after, verdict, ratio.value, ratio.ci95, how=how))
            continue
        how = f"re-timed side by side: {result.pairs} pairs in {result.process_pairs} process pairs"
        found.append(_compared(before, after, result.verdict, result.ratio, result.ci95, how=how))
    return tuple(found), matched


def find_engines(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the engine files below the folders that have a sidecar, by their sha256."""
    found: dict[str, Path] = {}
    for sidecar in (one for folder in folders for one in sorted(folder.rglob("*.json"))):
        engine = sidecar.with_name(sidecar.name.removesuffix(".json"))
        with contextlib.suppress(*MISFITS):  # no sidecar; of one that is, a worker checks what it says
            if engine.is_file() and isinstance(sha256 := read_json(sidecar)["engine_sha256"], str):
                found[sha256] = engine
    return found


def _runtimes_are_here(first: Report, second: Report) -> bool:
    """Whether both reports were made with the runtimes installed now; otherwise re-timing would miss the change."""
    now = runtime_versions(to_jsonable(collect_environment()))
    return runtime_versions(first.environment) == runtime_versions(second.environment) == now


def _retimed(
    before: Row,
    after: Row,
    *,
    files: Mapping[str, Path],
    folder: Path,
    sizes: tuple[int, int],
    share: tuple[int, int],
    tell: Listener,
) -> Outcome | None:
    """Time both engines side by side; None where one is not at hand or cannot be run."""
    subjects = [_engine_file(row, files, name=name) for row, name in ((before, "before"), (after, "after"))]
    engines = [one for one in subjects if one is not None]
    if len(engines) < len(subjects):
        return None
    done, total = share

    def progress(part: float) -> None:
        tell(Event(stage="compare", item=before.name, state="progress", share=(done + part) / total))

    pairs, process_pairs = sizes
    try:
        timed = time_together(
            engines,
            batch_size=before.batch_size,
            folder=folder,
            settings={},
            pairs=pairs,
            process_pairs=process_pairs,
            on_share=progress,
        )
    except RowError as error:
        tell(Event(stage="compare", item=before.name, state="note", detail=f"not re-timed: {error}"))
        return None
    result = outcome(timed["before"], timed["after"])
    if result is not None:
        tell(Event(stage="compare", item=before.name, state="done", detail=result.verdict))
    return result


def _engine_file(row: Row, files: Mapping[str, Path], *, name: str) -> EngineFile | None:
    path = files.get(row.engine_sha256 or "")
    if path is None or row.backend not in BACKENDS:
        return None
    known = (*BACKENDS[row.backend].settings, "spin")
    threads = row.settings.get("threads")
    settings: dict[str, Any] = {key: bool(row.settings[key]) for key in known if key in row.settings}
    if type(threads) is int and 0 < threads <= (os.cpu_count() or 1):
        settings["threads"] = threads
    return EngineFile(name=name, backend=row.backend, path=path, settings=settings)


def _compared(
    before: Row, after: Row, verdict: Verdict, ratio: float, ci95: tuple[float, float] | None, *, how: str
) -> Comparison:
    name = before.name if before.name == after.name else f"{before.name} -> {after.name}"
    drop_pp = top1_drop_pp(before, after)
    return Comparison(name=name, verdict=verdict, ratio=ratio, ci95=ci95, drop_pp=drop_pp, how=how)

"""The Python interface: `trtbench.run`, and the report that it gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench._optional import load as load_package
from trtbench.cli.screen import Screen
from trtbench.fleet import opened
from trtbench.report.columns import COLUMNS
from trtbench.report.document import Report, read_report
from trtbench.report.tables import row_lines, rows_for_terminal
from trtbench.report.words import file_line
from trtbench.running import Places, run_suite
from trtbench.shipping import ship_row
from trtbench.suite import Suite, parse_suite

if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

    from trtbench.progress import Listener
    from trtbench.rows import Row
    from trtbench.shipping import Shipped


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RunReport(Report):
    """A report that knows the folder it stands in; a notebook shows its table.

    Examples:
        >>> report = trtbench.RunReport.read(run)
        >>> [row.name for row in report.rows if row.role == "candidate"][0]
        'dense fp32 onnxruntime-cpu b1'
    """

    folder: Path

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Self:
        """Read the report of a run: its folder, or its report.json.

        Examples:
            >>> trtbench.RunReport.read(run).suite["name"]
            'tiny'

        Raises:
            ConfigError: there is none, or it is not of this version.
        """
        place = Path(path)
        return cls._of(read_report(place), place if place.is_dir() else place.parent)

    @classmethod
    def _of(cls, report: Report, folder: Path) -> Self:
        return cls(**{one.name: getattr(report, one.name) for one in fields(Report)}, folder=folder)

    @property
    def best(self) -> Row | None:
        """The row to ship; None where nothing qualifies.

        Examples:
            >>> report = trtbench.RunReport.read(run)
            >>> report.best.name == report.decision.winner
            True
        """
        return next((row for row in self.rows if row.name == self.decision.winner), None)

    def to_pandas(self) -> Any:
        """Return every row as a line of a `pandas.DataFrame`: the columns of report.csv, numbers unrounded.

        Raises:
            CapabilityError: pandas is absent.
        """
        columns = [column for column in COLUMNS if "csv" in column.shown_in]
        lines = [{column.key: column.value(line) for column in columns} for line in row_lines(self.rows)]
        return load_package("pandas").DataFrame(lines)

    def ship(
        self, output: str | PathLike[str], *, row: str | None = None, licence: str | None = None, zips: bool = False
    ) -> Shipped:
        """Write a row, by default the best, as a bundle, and prove it; see `trtbench.ship_row`.

        Examples:
            >>> trtbench.RunReport.read(run).ship(folder / "shipped").bundle.proof.correct
            18
        """
        return ship_row(self.folder, Path(output), row=row, licence=licence, zips=zips)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as report.json has them: where it stands is no part of it."""
        return {one.name: getattr(self, one.name) for one in fields(Report)}

    def __repr__(self) -> str:
        return f"<RunReport {self.run_id}: {len(self.rows)} rows. {self.decision.sentence}>"

    def _repr_html_(self) -> str:
        """Return the answer and the table of rows, for notebooks."""
        table = rows_for_terminal(self.rows)
        aligned = [f' style="text-align: {align}"' for align in table.aligns]
        head = "".join(f"<th{how}>{escape(name)}</th>" for name, how in zip(table.headers, aligned, strict=True))
        lines = [
            "".join(f"<td{how}>{escape(cell)}</td>" for cell, how in zip(line, aligned, strict=True))
            for line in table.cells
        ]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        notes = "".join(f"<br>{escape(note)}" for note in table.notes)
        answer = f"<b>{escape(self.decision.sentence)}</b><br>{escape(file_line(self.decision, run=str(self.folder)))}"
        return f"<p>{answer}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{notes}</p>"


def run(
    suite: Suite | str | PathLike[str] | Mapping[str, Any],
    *,
    out: str | PathLike[str] = "runs",
    engines: str | PathLike[str] = "engines",
    quiet: bool = False,
    tell: Listener | None = None,
) -> RunReport:
    """Do everything a suite asks for, as `trtbench run` does: build, score, time, decide; what is there is kept.

    Examples:
        >>> report = trtbench.run(suite, out=folder / "runs", engines=folder / "engines", quiet=True)
        >>> report.best.accuracy.correct
        18

    Args:
        suite: a suite, its file, a job, the name of a shipped one, or a mapping with the keys of a suite's file.
        out: the folder of runs and of the store.
        engines: the folder of engine files.
        quiet: show no progress.
        tell: told of progress instead.

    Raises:
        ConfigError: the suite, its images or its checkpoint cannot be used.
        StoreError: nothing can be written.
        KeyboardInterrupt: someone stopped it; what was measured is in the folder of the run.
    """
    asked, places = _suite(suite, Places(runs=Path(out), engines=Path(engines)))
    now = datetime.now(UTC).astimezone()
    argv = ("trtbench.run", asked.origin)
    with Screen(is_quiet=quiet or tell is not None) as screen:
        found = run_suite(asked, places, argv=argv, now=now, tell=tell or screen)
    return RunReport._of(*found)  # noqa: SLF001  its own module


def _suite(given: Suite | str | PathLike[str] | Mapping[str, Any], places: Places) -> tuple[Suite, Places]:
    if isinstance(given, Suite):
        return given, places
    if isinstance(given, Mapping):
        return parse_suite(json.dumps(dict(given), default=str), origin="suite", base=Path.cwd()), places
    return opened(str(given), places)

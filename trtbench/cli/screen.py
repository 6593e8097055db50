"""What people see: progress while it lasts, lines for what is done, tables, JSON; all but results go to stderr."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import textwrap
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trtbench.jsonable import to_jsonable
from trtbench.progress import time_left

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.progress import TaskID

    from trtbench.progress import Event

IS_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)  # of the command line
_JSON_VERSION = "1"  # goes up where a key of --json goes away or means another thing; new ones come without
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_AGAIN_S = 30  # after which a line says again what lasts
_MARKS = {
    "started": "start ",
    "done": "[green]done  [/green]",
    "cached": "[cyan]kept  [/cyan]",
    "failed": "[red]failed[/red]",
    "note": "note  ",
}


def complain(error: Exception | str) -> None:
    """Write an error to stderr, one line a fault."""
    console = Console(stderr=True, soft_wrap=True)
    for line in _printable(str(error)).split("\n"):
        console.print(f"[red]error:[/red] {escape(line)}", highlight=False)


def _printable(text: str) -> str:
    """Return a text without what would steer a terminal: names in files come from anyone."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str) -> None:
    """Write a line for people to stderr, unless they want quiet."""
    Console(stderr=True, soft_wrap=True, quiet=IS_QUIET.get()).print(_printable(text), highlight=False, markup=False)


def warn(text: str) -> None:
    """Write a line to stderr that nobody may miss."""
    Console(stderr=True, soft_wrap=True).print(f"[yellow]warning:[/yellow] {escape(_printable(text))}", highlight=False)


class LogOnScreen(logging.Handler):
    """Shows on stderr what libraries log, beside the live line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        text = _printable(f"{record.levelname.lower()} {record.name}: {self.format(record)}")
        Console(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False, style="dim")


def show(text: str) -> None:
    """Write a result to stdout."""
    sys.stdout.write(_printable(text) + "\n")


def show_json(value: Any) -> None:
    """Write one JSON object to stdout, with the version of its keys where it has none of its own."""
    show(json.dumps({"schema_version": _JSON_VERSION, **to_jsonable(value)}, indent=2))


def show_table(
    title: str,
    headers: Sequence[str],
    cells: Iterable[Sequence[str]],
    *,
    left: int = 99,
    spare: Sequence[str] = (),
) -> None:
    """Write a table to stdout; the first `left` columns are words, the others numbers.

    A header is folded between its words where it is wider than what stands below it. On a terminal that is too narrow
    the columns headed by `spare` go, the first of them first, and which went is said.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    rows = [tuple(map(_printable, row)) for row in cells]
    folded = [_folded(header, [row[index] for row in rows]) for index, header in enumerate(headers)]
    widths = [
        max(map(len, (*header.split("\n"), *(row[index] for row in rows)))) for index, header in enumerate(folded)
    ]
    shown, gone = list(range(len(headers))), []
    for header in spare:
        if sum(widths[index] + 3 for index in shown) + 1 > console.width and header in headers:
            shown.remove(list(headers).index(header))
            gone.append(header)
    table = Table(title=Text(_printable(title)), title_justify="left", header_style="bold")
    for index in shown:
        table.add_column(folded[index], justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[index]) for index in shown))
    console.print(table)
    if gone:
        say(f"not shown for want of width: {', '.join(gone)}; the report has them")


def _folded(header: str, cells: Sequence[str]) -> str:
    width = max(map(len, cells), default=len(header))
    return "\n".join(textwrap.wrap(header, max(width, 1), break_long_words=False))


class Screen:
    """A listener of pipeline events: a live line on a terminal, plain lines elsewhere and under CI, nothing when quiet.

    The live line shows what is running, how far it is, and the time that is left of it. Elsewhere what lasts long is
    told again every half minute.

    Args:
        is_quiet: show nothing; else as the command line says.
    """

    def __init__(self, *, is_quiet: bool | None = None) -> None:
        is_quiet = IS_QUIET.get() if is_quiet is None else is_quiet
        self._console = Console(stderr=True, quiet=is_quiet, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]:<15} {task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=is_quiet or not self._console.is_terminal or os.environ.get("CI", "").lower() in {"1", "true"},
        )
        self._told_at = time.monotonic()
        self._task: TaskID | None = None
        self._shown: tuple[str, str] | None = None
        self._begun = (0.0, 0.0)  # when what is shown was first heard of, and how far it was

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        is_told = event.state == "started" and any(isinstance(one, LogOnScreen) for one in logging.getLogger().handlers)
        if event.state in {"started", "progress"} and not is_told:
            self._tell_again(event) if self._progress.disable else self._follow(event)
            return
        self._told_at = time.monotonic()
        took = f" [dim]{event.seconds:.1f} s[/dim]" if event.state == "done" and event.seconds is not None else ""
        detail = f" [dim]{escape(event.detail)}[/dim]" if event.detail else ""
        self._console.print(
            f"{_MARKS[event.state]} {event.stage:<15} {escape(event.item)}{took}{detail}", highlight=False
        )

    def _tell_again(self, event: Event) -> None:
        now, share = time.monotonic(), event.share or 0.0
        if self._shown != (event.stage, event.item):
            self._shown, self._begun = (event.stage, event.item), (now, share)
        if now - self._told_at < _AGAIN_S:
            return
        self._told_at = now
        since, before = self._begun
        left = f", {time_left((now - since) / (share - before) * (1 - share))}" if share > before else ""
        told = "" if event.share is None else f" {share:.0%}{'' if ' left' in event.detail else left}"
        words = escape(" ".join(filter(None, (event.item, event.detail))))
        self._console.print(f"still  {event.stage:<15} {words}{told}", highlight=False)

    def _follow(self, event: Event) -> None:
        if self._shown != (event.stage, event.item):
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(escape(event.item), total=None, stage=event.stage)
            self._shown = (event.stage, event.item)
        if event.share is not None and self._task is not None:
            text = escape(f"{event.item} {event.detail}".strip())
            self._progress.update(self._task, total=1.0, completed=event.share, description=text)


def tell(found: Any, words: str, *, as_json: bool) -> None:
    """Show the record that a step returned, or it in words with its notes beside it."""
    if as_json:
        show_json(found)
        return
    show(words)
    for note in getattr(found, "notes", ()):
        say(f"note: {note}")

"""A report on disk: report.json, report.md and the plots, each whole or absent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from trtbench.errors import ConfigError
from trtbench.records import to_jsonable
from trtbench.report.document import validate_report
from trtbench.report.markdown import render_markdown
from trtbench.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.report.document import Report


def write_report(report: Report, folder: Path) -> None:
    """Write report.json, plots/*.png and report.md into `folder`; every file replaces the old one at once.

    The JSON comes first: it holds every number unrounded, and the rest is drawn from it. It is read back through the
    schema before it is written, so that no report is written that could not be read.

    Raises:
        ConfigError: the report holds what its schema does not allow; nothing is written.
        StoreError: the disk is full or the folder cannot be written.
    """
    text = _encoded(report)
    validate_report(text, origin="report.json")
    write_atomically(folder / "report.json", text)
    from trtbench.report.plots import draw_plots  # matplotlib is slow to import, and readers do without

    plots = draw_plots(report.rows, report.decision)
    for plot in plots:
        write_atomically(folder / plot.path, plot.png)
    write_atomically(folder / "report.md", render_markdown(report, plots={plot.path: plot.caption for plot in plots}))


def _encoded(report: Report) -> str:
    try:
        return json.dumps(to_jsonable(report), indent=2, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise ConfigError(
            "report.json",
            expected="JSON values only",
            got=str(error),
            cure="turn the value into text or a number first",
        ) from error

"""A run on disk: report.json, .md, .html, .csv, the plots and raw/<row>.json, each whole or absent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.interleave import Timing
from trtbench.disk import write_atomically
from trtbench.errors import ConfigError
from trtbench.foreign import MISFITS, read_json
from trtbench.jsonable import to_jsonable
from trtbench.report.document import validate_report
from trtbench.report.markdown import render_markdown
from trtbench.report.tables import to_csv

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.bench.records import Measured
    from trtbench.report.charts import Samples
    from trtbench.report.document import Report
    from trtbench.rows import Row

_PLAIN = "device latency"


def write_report(report: Report, folder: Path) -> None:
    """Write report.json, report.csv, plots/*.png, report.md and report.html; every file replaces the old one at once.

    The JSON comes first: it holds every number unrounded, and the rest is drawn from it. It is read back through the
    schema before it is written, so that no report is written that could not be read. Raw samples are drawn where the
    folder has them.

    Raises:
        ConfigError: the report holds what its schema does not allow, or raw samples are damaged.
        StoreError: the disk is full or the folder cannot be written.
    """
    text = _encoded(report)
    validate_report(text, origin="report.json")
    write_atomically(folder / "report.json", text)
    write_atomically(folder / "report.csv", to_csv(report.rows))
    from trtbench.report.figures import draw_figures, images  # matplotlib is slow to import, and readers do without
    from trtbench.report.html import render_html

    drawings = draw_figures(report.rows, report.decision, samples=_samples(report, folder))
    plots = images(drawings)
    for plot in plots:
        write_atomically(folder / plot.path, plot.png)
    write_atomically(folder / "report.md", render_markdown(report, plots={plot.path: plot.caption for plot in plots}))
    write_atomically(folder / "report.html", render_html(report, drawings=drawings))


def _samples(report: Report, folder: Path) -> Samples:
    """Return the raw samples of each row in ms, where they were kept."""
    kept = {row.name: read_blocks(folder, row) for row in report.rows if row.latency is not None}
    return {name: np.concatenate(timed.blocks) / 1e6 for name, timed in kept.items() if timed is not None}


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


def write_raw(folder: Path, row: Row, measured: Measured) -> None:
    """Keep every sample: by the way it was taken, the blocks, the process of each, and when it was.

    Raises:
        StoreError: the folder cannot be written.
    """
    samples = {
        f"{way.scope} {way.mode}": {
            "blocks_ns": [block.tolist() for block in timed.blocks],
            "processes": list(timed.processes),
            "spans_ns": [list(span) for span in timed.spans],
        }
        for way in measured.ways
        if (timed := measured.timed_as(way)) is not None
    }
    raw: dict[str, Any] = {"row": row.name, "samples": samples, "predictions": measured.predictions}
    write_atomically(_path(folder, row), json.dumps(raw))


def read_blocks(folder: Path, row: Row) -> Timing | None:
    """Return the plain samples of a row of the run in this folder; None where none were kept.

    Raises:
        ConfigError: the file is damaged.
    """
    path = _path(folder, row)
    if not path.is_file():
        return None
    try:
        kept = read_json(path).get("samples", {}).get(_PLAIN)
        if kept is None:
            return None
        timing = Timing(
            blocks=tuple(np.array(block, dtype=np.int64) for block in kept["blocks_ns"]),
            processes=tuple(map(int, kept["processes"])),
            spans=tuple((int(since), int(until)) for since, until in kept["spans_ns"]),
        )
        if len({len(timing.blocks), len(timing.processes), len(timing.spans)}) > 1 or not timing.blocks:
            raise ValueError("blocks, processes and spans of different numbers")
        if not all(block.ndim == 1 and len(block) and block.min() > 0 for block in timing.blocks):
            raise ValueError("an empty block, or a time that is not above 0")
        return timing  # noqa: TRY300  what it is made of is checked
    except MISFITS as error:
        cure = "remove it; the report then stands on its own figures"
        raise ConfigError(f"samples {path}", expected="a whole file", got=repr(error), cure=cure) from error


def read_predictions(folder: Path, row: Row) -> tuple[int, ...]:
    """Return the first class of each test image as a row of the run in this folder gave it; () where none were kept.

    Raises:
        ConfigError: the file is damaged.
    """
    path = _path(folder, row)
    try:
        return tuple(map(int, read_json(path)["predictions"]))
    except FileNotFoundError:
        return ()
    except MISFITS as error:
        raise ConfigError(f"samples {path}", expected="a whole file", got=repr(error), cure="remove it") from error


def _path(folder: Path, row: Row) -> Path:
    return folder / "raw" / f"{row.name.replace(' ', '_')}.json"

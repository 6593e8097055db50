"""A report that has everything a report can have, and a browser to look at it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator  # noqa: TC003  pytest reads the annotations of fixtures
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trtbench.report.disk import write_report
from trtbench.report.document import Report, read_report
from trtbench.rows import LoadRecord

if TYPE_CHECKING:
    from trtbench.rows import Row

GOLDEN = Path(__file__).parent / "twenty-four-rows.json"


def _filled(row: Row) -> Row:
    """Give a row drops by class, an interval of its median, a load and a note."""
    assert row.accuracy
    assert row.latency
    p50 = row.latency.p50_ms
    drops = (0.0, 1.25, -2.5, 0.0, 12.5)
    load = LoadRecord(
        scenario="arrivals", streams=1, rate=100.0, throughput_ips=99.0, p50_ms=p50, p90_ms=p50, p99_ms=None,
        max_ms=9.0, n=500, p99_limit_ms=10.0, holds=False,
    )  # fmt: skip
    return replace(
        row,
        accuracy=replace(row.accuracy, class_drops_pp=drops, worst_class="class <four>", ece=0.0123),
        latency=replace(row.latency, p50_ci95_ms=(0.9 * p50, 1.2 * p50)),
        loads=(load,) if row.batch_size == 1 else (),
        notes=(*row.notes, "a note with <b>markup</b> & signs"),
    )


@pytest.fixture(scope="session")
def full_report() -> Report:
    """A report with a failed row, a row no runtime supports, loads, drops by class, and text that looks like markup."""
    golden = read_report(GOLDEN)
    first, second, *others = golden.rows
    blank: dict[str, Any] = {"accuracy": None, "latency": None, "engine_bytes": None, "throughput_ips": None}
    failed = replace(first, variant="broken", status="failed", reason="it <burst>\x1b & went", **blank)
    absent = replace(second, variant="other", status="unsupported", reason="no such kernel", **blank)
    rows = (_filled(first), second, *map(_filled, others), failed, absent)
    telemetry = {"cpu": {"readings": 3, "load": {"min": 0.1, "median": 0.2, "max": 0.3}}}
    return replace(golden, rows=rows, telemetry=telemetry)


@pytest.fixture(scope="session")
def report_folder(full_report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on disk, with raw samples of its rows at batch 1."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "raw").mkdir()
    random = np.random.default_rng(0)
    for row in full_report.rows:
        if row.latency is None or row.batch_size > 1:
            continue
        blocks = (1e6 * row.latency.p50_ms * random.lognormal(0, 0.1, (3, 60))).astype(np.int64).tolist()
        kept = {"blocks_ns": blocks, "processes": [0, 0, 1], "spans_ns": [[0, 1], [1, 2], [2, 3]]}
        text = json.dumps({"row": row.name, "samples": {"device latency": kept}, "predictions": None})
        (folder / "raw" / f"{row.name.replace(' ', '_')}.json").write_text(text, encoding="utf-8")
    write_report(full_report, folder)
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, in a fresh profile."""
    from tests.screenshot import browser as started

    pytest.importorskip("selenium", reason="needs selenium: pip install 'trtbench[dev]'")
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    with started(tmp_path_factory.mktemp("profile")) as found:
        yield found

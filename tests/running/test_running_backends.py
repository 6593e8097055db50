"""A runtime is one module and one line; the public fake is one that a suite may name."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING

import pytest

from trtbench.errors import ConfigError
from trtbench.running import run_suite
from trtbench.suite import BACKENDS, BackendEntry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.rows import Row
    from trtbench.running import Places
    from trtbench.suite import Suite

_NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
# It tells a class by its colour, which is what the images of these tests differ in; its engine file is the graph.
_TOY = """
import shutil
import numpy as np
from trtbench.engines.base import BackendFacts, BuildResult, SessionFacts


class Toy:
    name, precisions, suffix, takes_options = "toy", ("fp32",), ".toy", False

    def is_simulated(self):
        return False

    def facts(self, options=None):
        return BackendFacts(version="1", device="toy", machine="any", usual_precisions=("fp32",))

    def build(self, request):
        shutil.copyfile(request.source, request.engine)
        return BuildResult(achieved="fp32", weight_bytes=0)

    def open(self, path, sidecar, settings):
        return Engine()


class Engine:
    device = "toy"

    def session(self, batch):
        return Session()

    def close(self):
        pass


class Session:
    def copy_in(self, images):
        self.images = images.copy()

    def enqueue(self):
        self.logits = self.images.mean(axis=(2, 3))

    def synchronize(self):
        pass

    def copy_out(self):
        return self.logits

    def time(self, samples, *, launches_per_sample, scope):
        return np.full(samples, 1_000_000 * launches_per_sample)

    def time_parts(self, samples):
        return None

    def describe(self):
        return SessionFacts(settings={})

    def close(self):
        pass


TOY = Toy()
"""


def _engines(make: Callable[..., Suite], backend: str, *, more: str = "") -> Suite:
    bench = "{batch_sizes: [1, 2], duration: 0.01, warm_up: 0, block_ms: 2, processes: 1, baselines: []}"
    return make(f"engines: [{{backend: {backend}{more}}}]\nbench: {bench}")


def _rows(suite: Suite, places: Places) -> tuple[Row, ...]:
    report, _ = run_suite(suite, places, argv=[], now=_NOW)
    return report.rows


@pytest.mark.whole
def test_a_toy_backend_needs_one_file_and_one_line(
    suite: Callable[..., Suite], places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_runtime.py").write_text(_TOY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")  # of the workers
    monkeypatch.setitem(BACKENDS, "toy", BackendEntry(place="toy_runtime:TOY"))

    rows = _rows(_engines(suite, "toy"), places)
    sys.modules.pop("toy_runtime")

    assert [(row.name, row.status, row.device) for row in rows] == [
        ("dense fp32 toy b1", "ok", "toy"),
        ("dense fp32 toy b2", "ok", "toy"),
    ]
    assert all(row.accuracy is not None and row.accuracy.correct == row.accuracy.total for row in rows)
    assert [row.latency.p50_ms for row in rows if row.latency is not None] == pytest.approx([1.0, 1.0])
    assert not any(row.simulated for row in rows)


def test_a_suite_may_name_the_fake_and_its_rows_are_never_ranked(suite: Callable[..., Suite], places: Places) -> None:
    report, _ = run_suite(_engines(suite, "fake", more=", precisions: [fp32, int8]"), places, argv=[], now=_NOW)

    assert {(row.name, row.status) for row in report.rows} == {
        (f"dense {precision} fake b{size}", "ok") for precision in ("fp32", "int8") for size in (1, 2)
    }
    assert all(row.simulated and row.latency is not None for row in report.rows)
    assert report.decision.winner is None


def test_a_runtime_of_another_name_is_refused_with_those_there_are(suite: Callable[..., Suite]) -> None:
    with pytest.raises(ConfigError, match=r"engines.0.backend: expected auto or tensorrt or .* or fake, got 'eager'"):
        _engines(suite, "eager")
    with pytest.raises(
        ConfigError, match=r"bench.baselines.0: expected eager or eager-cudagraph or compile, got 'fake'"
    ):
        suite("bench: {baselines: [fake]}")

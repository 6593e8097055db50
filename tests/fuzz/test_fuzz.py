"""A few cases, the same each time: of readers, and of whole command lines where it may take long."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.fuzz.cases import Cases
from tests.fuzz.forked import Server
from tests.fuzz.run import Fuzzing
from tests.fuzz.valid import write_texts
from trtbench.engines.sidecar import read_sidecar
from trtbench.errors import TrtbenchError
from trtbench.report.document import read_report
from trtbench.shipping.bundle import read_bundle
from trtbench.suite import load_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fuzz.cases import Case

_READERS: dict[str, Callable[[Path], object]] = {
    "suites": lambda folder: load_suite(folder / "suite.yaml"),
    "reports": lambda folder: read_report(folder / "report.json"),
    "sidecars": lambda folder: read_sidecar(folder / "engine.json"),
    "bundles": lambda folder: read_bundle(folder / "bundle"),
}


@pytest.mark.parametrize("kind", _READERS)
def test_a_reader_raises_nothing_but_a_sentence(kind: str, tmp_path: Path) -> None:
    valid, folder = tmp_path / "valid", tmp_path / "here"
    write_texts(valid)
    _READERS[kind](valid)

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=40, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(getattr(Cases(valid), kind)())
    def each(case: Case) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        case.lay_out(folder, valid)
        with contextlib.suppress(TrtbenchError):
            _READERS[kind](folder)

    each()


@pytest.mark.slow
def test_no_hostile_input_ends_in_anything_but_a_sentence(tmp_path: Path) -> None:
    with Server() as server:
        fuzzing = Fuzzing(tmp_path, server)
        for kind in fuzzing.cases.kinds():
            assert fuzzing.refused(kind) == [], f"valid {kind}"
            failed = [(case.argv, one) for case, one in fuzzing.outcomes(kind, 20) if one.faults]
            assert failed == [], kind

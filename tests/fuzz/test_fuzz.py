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
from tests.fuzz.valid import write_all
from trtbench.calibrate.manifest import load_manifest
from trtbench.data.decode import decode
from trtbench.data.folder import unpacked
from trtbench.engines.sidecar import read_sidecar
from trtbench.errors import TrtbenchError
from trtbench.graph.given import load_onnx
from trtbench.models.files import read_content
from trtbench.records import Framing
from trtbench.report.document import read_report
from trtbench.shipping.bundle import read_bundle
from trtbench.store import Store
from trtbench.suite import load_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fuzz.cases import Case


def _read_store(path: Path) -> object:
    store = Store(next(folder for folder in path.parents if folder.name == ".store"))
    return (*store.journal(), *store.artefacts())


# Of each kind a valid file and what reads it, in the process of the tests; what may never end is among the slow.
_READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "suites": ("suite.yaml", load_suite),
    "checkpoints": ("net.pth", read_content),
    "packed": ("net.tbz", read_content),
    "onnx": ("net.onnx", load_onnx),
    "images": ("one.png", lambda path: decode([path], root=path.parent, framing=Framing(size=8))),
    "archives": ("set.zip", unpacked),
    "reports": ("report.json", read_report),
    "sidecars": ("engine.json.json", lambda path: read_sidecar(path.with_name("engine.json"))),
    "manifests": ("manifest.json", load_manifest),
    "bundles": ("bundle/bundle.json", lambda path: read_bundle(path.parent)),
    "store": ("runs/.store/journal.jsonl", _read_store),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("valid")
    write_all(folder)
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")
@pytest.mark.parametrize("kind", _READERS)
def test_a_reader_raises_nothing_but_a_sentence(
    kind: str, valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    name, read = _READERS[kind]
    read(valid / name)

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=30, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(getattr(Cases(valid), kind)())
    def each(case: Case) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        case.lay_out(folder, valid)
        changed = next(iter({**case.files, **case.odd}))
        with contextlib.suppress(TrtbenchError):
            read(folder / changed)

    each()


@pytest.mark.slow
def test_no_hostile_input_ends_in_anything_but_a_sentence(tmp_path: Path) -> None:
    with Server() as server:
        fuzzing = Fuzzing(tmp_path, server)
        for kind in fuzzing.cases.kinds():
            assert fuzzing.refused(kind) == [], f"valid {kind}"
            failed = [(case.argv, one) for case, one in fuzzing.outcomes(kind, 20) if one.faults]
            assert failed == [], kind

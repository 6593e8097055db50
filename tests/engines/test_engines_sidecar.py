"""A sidecar tells what an engine is; an engine that is not what it tells is refused before it is loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from trtbench.disk import file_sha256
from trtbench.engines.sidecar import check_engine, read_sidecar, sidecar_path, write_sidecar
from trtbench.errors import SidecarError
from trtbench.rows import CalibrationRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from trtbench.engines.sidecar import Sidecar

    Make = Callable[..., Sidecar]


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "dense.fp32.engine"
    path.write_bytes(b"plan")
    return path


def _edit(engine: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = sidecar_path(engine)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_sidecar_reads_back_as_it_was_written(engine: Path, sidecar: Make) -> None:
    calibrated = CalibrationRecord(method="mse", snr_db=31.5, agreement=0.99, images=100)
    made = sidecar(notes=("one", "two"), settings={"threads": 1}, params=7, calibration=calibrated)

    write_sidecar(engine, made)

    assert read_sidecar(engine) == made
    assert json.loads(sidecar_path(engine).read_text())["preprocessing_fingerprint"] == made.preprocessing.fingerprint


def test_a_sidecar_of_before_is_read_into_the_fields_of_now(engine: Path, sidecar: Make) -> None:
    write_sidecar(engine, sidecar(widths=(16, 8)))
    path = sidecar_path(engine)
    document = json.loads(path.read_text(encoding="utf-8"))
    older = {name: value for name, value in document.items() if name not in {"sparse", "build", "widths"}}
    path.write_text(json.dumps(older | {"precision": "int8+sparse#2", "channels": [16, 8]}), encoding="utf-8")
    found = read_sidecar(engine)
    assert (found.precision, found.sparse, found.build, found.widths) == ("int8", True, 2, (16, 8))

    path.write_text(json.dumps(older | {"precision": "int9"}), encoding="utf-8")
    with pytest.raises(SidecarError, match=r"precision: expected fp32 or .*got 'int9'; build the engine again"):
        read_sidecar(engine)


def test_an_engine_without_a_sidecar_is_refused(engine: Path) -> None:
    with pytest.raises(SidecarError, match="beside it; build the engine again"):
        read_sidecar(engine)


def test_a_sidecar_cut_short_is_refused(engine: Path, sidecar: Make) -> None:
    write_sidecar(engine, sidecar())
    path = sidecar_path(engine)
    path.write_bytes(path.read_bytes()[:40])

    with pytest.raises(SidecarError, match="whole sidecar"):
        read_sidecar(engine)


def test_a_sidecar_of_another_version_is_refused(engine: Path, sidecar: Make) -> None:
    write_sidecar(engine, sidecar())
    _edit(engine, lambda document: document.update(schema_version=99))

    with pytest.raises(SidecarError, match="expected 1, got 99"):
        read_sidecar(engine)


def test_a_preprocessing_changed_by_hand_is_refused(engine: Path, sidecar: Make) -> None:
    write_sidecar(engine, sidecar())
    _edit(engine, lambda document: document["preprocessing"].update(mean=[0.1, 0.1, 0.1]))

    with pytest.raises(SidecarError, match="fingerprint"):
        read_sidecar(engine)


def test_an_engine_with_other_bytes_is_refused(engine: Path, sidecar: Make) -> None:
    made = sidecar(engine_sha256=file_sha256(engine), rebuild="trtbench build mine")
    check_engine(engine, made, machine="any")
    engine.write_bytes(b"another plan")

    with pytest.raises(SidecarError, match=r"sha256.*build it here: `trtbench build mine`"):
        check_engine(engine, made, machine="any")


def test_an_engine_of_another_machine_is_refused(engine: Path, sidecar: Make) -> None:
    made = sidecar(engine_sha256=file_sha256(engine), machine="aarch64 cpu")

    with pytest.raises(SidecarError, match="expected x86_64 cpu, got aarch64 cpu"):
        check_engine(engine, made, machine="x86_64 cpu")


def test_a_missing_engine_is_refused(tmp_path: Path, sidecar: Make) -> None:
    with pytest.raises(SidecarError, match="expected a file, got nothing"):
        check_engine(tmp_path / "none", sidecar(), machine="any")

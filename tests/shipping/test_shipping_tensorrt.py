"""A plan ships with what runs it: here on the doubles of TensorRT and CuPy, which compute with ONNX Runtime."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.records import arrays_of
from trtbench.running import Places, run_suite
from trtbench.shipping import prove as proving
from trtbench.shipping import read_bundle, ship_row
from trtbench.shipping.templates import predict as predict_of_bundles
from trtbench.suite import EngineConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from trtbench.suite import Suite


@pytest.fixture
def _made_once(made_once: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtbench.store.Store.make", made_once)


@pytest.mark.parametrize("profile", [None, (1, 2, 4)], ids=["fixed", "dynamic"])
@pytest.mark.usefixtures("in_short", "_made_once")
def test_a_plan_ships_with_what_runs_it(
    small_suite: Suite,
    tensorrt_double: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    profile: tuple[int, int, int] | None,
) -> None:
    engine = EngineConfig(backend="tensorrt", precisions=("fp32",), profile=profile)
    bench = small_suite.bench.model_copy(update={"baselines": ()})
    suite = small_suite.model_copy(update={"engines": (engine,), "bench": bench})
    places = Places(runs=tmp_path / "runs", engines=tmp_path / "engines")
    _, run = run_suite(suite, places, argv=[], now=datetime(2026, 1, 2, tzinfo=UTC))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(proving, "scored", _here)  # no double is in the path of a process that knows the bundle alone

    found = ship_row(run, tmp_path / "bundle", row="dense fp32 tensorrt b2")

    assert tensorrt_double.IS_SIMULATED
    assert found.bundle.engine == "engine.plan"
    assert found.bundle.profile == profile
    assert found.bundle.proof is not None
    assert (found.bundle.proof.correct, found.bundle.proof.flips) == (18, 0)
    assert found.bundle.rebuild.startswith("trtexec --onnx=model.onnx --saveEngine=engine.plan ")
    assert str(tmp_path) not in found.bundle.rebuild
    assert str(tmp_path) not in (found.folder / "engine.plan.json").read_text(encoding="utf-8")
    config = (found.folder / "triton" / "models" / "engine" / "config.pbtxt").read_text(encoding="utf-8")
    assert f"max_batch_size: {0 if profile is None else 4}\n" in config
    golden = arrays_of(found.folder / "golden.npz")
    pixels = golden["images"].transpose(0, 3, 1, 2)
    classifier = _classifier(found.folder)
    np.testing.assert_allclose(classifier.logits(pixels, 1), golden["logits"], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="batch 5 is in no profile"):
        classifier.logits(pixels, 5)
    assert read_bundle(found.folder) == found.bundle


def _classifier(folder: Path) -> predict_of_bundles.Classifier:
    sys.modules["runtime"] = import_module("trtbench.shipping.templates.tensorrt")
    try:
        return predict_of_bundles.Classifier(folder)
    finally:
        del sys.modules["runtime"]


def _here(folder: Path, images: NDArray[np.uint8], *, batch: int) -> Any:
    return _classifier(folder).logits(images, batch)

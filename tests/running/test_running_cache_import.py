"""`calibrate --from-cache`: TensorRT 10's calibration cache becomes Q/DQ scales of the same graph."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.calibration_cache import format_cache
from trtbench.engines.tensorrt.caches import CalibrationCache
from trtbench.errors import DataError, GraphError
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.steps import calibration, float_onnx, imported_calibration, step
from trtbench.suite import DataConfig, ExportConfig, adhoc_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.command import Answer
    from trtbench.steps import Calibrated
    from trtbench.suite import Suite

    Make = Callable[..., Suite]


@pytest.fixture
def calibrated(suite: Make, tmp_path: Path) -> Path:
    """The files of our own calibration of the tiny suite."""
    step(suite(), calibration, tmp_path / "own")
    return tmp_path / "own"


def _imported(suite: Suite, output: Path, cache: Path) -> Calibrated:
    return step(suite, partial(imported_calibration, cache=cache), output)


def _scales(calibrated: Path) -> dict[str, float]:
    """The ranges of the tensors that TensorRT's placement reads, as the scales a calibrator would write."""
    amax = json.loads((calibrated / "ranges.json").read_bytes())
    wanted = _activation_scales(calibrated / "model.qdq.onnx")
    return {tensor: float(np.float32(amax[tensor] / 127)) for tensor in wanted}


def _activation_scales(graph: Path) -> dict[str, Any]:
    initializers = onnx.load(graph).graph.initializer
    arrays = {item.name.removesuffix(".scale"): numpy_helper.to_array(item) for item in initializers}
    return {name: array for name, array in arrays.items() if array.ndim == 0 and not name.endswith(".zero_point")}


def _write(path: Path, scales: Mapping[str, float]) -> Path:
    path.write_text(format_cache(CalibrationCache(version="101601", algorithm="EntropyCalibration2", scales=scales)))
    return path


def test_a_cache_of_our_own_ranges_gives_the_graph_of_our_own_calibration(
    suite: Make, calibrated: Path, tmp_path: Path
) -> None:
    cache = _write(tmp_path / "calib.cache", _scales(calibrated))

    found = _imported(suite(), tmp_path / "imported", cache)

    assert found.method == "TensorRT's EntropyCalibration2"
    assert found.tensors == len(_scales(calibrated))
    assert found.notes == ()
    own, imported = (_activation_scales(folder / "model.qdq.onnx") for folder in (calibrated, tmp_path / "imported"))
    assert own.keys() == imported.keys()
    assert all(own[name].tobytes() == imported[name].tobytes() for name in own)
    assert not (tmp_path / "imported" / "manifest.json").exists()
    amax = json.loads((tmp_path / "imported" / "ranges.json").read_bytes())
    assert amax == {tensor: 127 * scale for tensor, scale in _scales(calibrated).items()}


def test_what_the_graph_does_not_ask_for_is_told_and_a_dead_tensor_gets_a_scale(
    suite: Make, calibrated: Path, tmp_path: Path
) -> None:
    scales = _scales(calibrated)
    first, second = list(scales)[:2]
    changed = {**scales, first: 0.0, f"{second}_output": scales[second], "stranger": 1.0}
    del changed[second]

    found = _imported(suite(), tmp_path / "out", _write(tmp_path / "c", changed))

    assert list(found.notes) == [
        "1 tensors of the cache the placement asks no scale of: stranger",
        f"1 tensors by the cache's name: {second} = {second}_output",
        f"1 tensors that were 0 on all images: {first}",
    ]
    assert json.loads((tmp_path / "out" / "ranges.json").read_bytes())[first] == 1.0


def test_a_cache_of_another_graph_is_refused_and_nothing_is_written(suite: Make, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="calibrate this very graph"):
        _imported(suite(), tmp_path / "out", _write(tmp_path / "c", {"other": 0.5}))

    assert not (tmp_path / "out").exists()


def test_a_scale_that_int8_cannot_use_is_refused(suite: Make, calibrated: Path, tmp_path: Path) -> None:
    scales = _scales(calibrated)
    smallest = {**scales, next(iter(scales)): 1e-45}  # positive in a cache, 0 where its 255th is asked for

    with pytest.raises(GraphError, match="a positive float32"):
        _imported(suite(), tmp_path / "out", _write(tmp_path / "c", smallest))


def test_a_cache_that_is_absent_or_binary_is_an_error_of_the_user(suite: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        _imported(suite(), tmp_path / "out", tmp_path / "none")

    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="expected text"):
        _imported(suite(), tmp_path / "out", tmp_path / "binary")


def test_the_command_line_imports_the_cache_of_a_given_graph(
    images: Path, checkpoint: Path, tmp_path: Path, command: Callable[..., Answer]
) -> None:
    model = tmp_path / "model.onnx"
    weights = {"name": "tiny_nets:resnet8", "checkpoint": checkpoint}
    data = DataConfig(source=f"folder:{images}", size=16)
    step(adhoc_suite(model=weights, data=data, export=ExportConfig(exporter="torchscript")), float_onnx, model)
    tensors = activation_tensors(plan_qdq(onnx.load(model)))
    cache = _write(tmp_path / "calib.cache", dict.fromkeys(tensors, 0.5))
    given = ["calibrate", "--model", f"onnx:{model}", "--data", f"folder:{images}", "--size", 16, "--from-cache", cache]

    told = command(*given, "--output", tmp_path / "out")

    assert not told.code
    assert told.out.split(": ")[1].strip() == f"{len(tensors)} tensors from calib.cache"
    scales = _activation_scales(tmp_path / "out" / "model.qdq.onnx")
    assert {name: float(scale) for name, scale in scales.items()} == dict.fromkeys(tensors, 0.5)


def test_images_or_a_method_beside_a_cache_are_refused(tmp_path: Path, command: Callable[..., Answer]) -> None:
    given = ["calibrate", "--model", "resnet20", "--output", tmp_path, "--from-cache", tmp_path / "c"]

    told = command(*given, "--per-class", 5, "--method", "minmax")

    assert told.code == 2
    assert "--per-class, --method: expected only without --from-cache" in told.err

"""`inspect` and `crosscheck` of an engine that was just built, for both majors through the strict double."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.records import sidecar_of
from trtbench.disk import file_sha256
from trtbench.engines.base import BuildOptions, BuildRequest, backend
from trtbench.engines.sidecar import read_sidecar, write_sidecar
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("tensorrt_double")
_SUMMARY = (
    "[I] === Performance summary ===\n"
    "[I] Throughput: 100 qps\n"
    "[I] GPU Compute Time: min = {ms} ms, max = {ms} ms, mean = {ms} ms, median = {ms} ms, percentile(99%) = {ms} ms\n"
)


@pytest.fixture
def trtbench(command: Run) -> Run:
    """Run a command line in this process."""
    return command


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine of one convolution, built by the double, and its sidecar."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3), dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["logits"], "flatten"),
    ]
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
            [numpy_helper.from_array(weights, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    source, path = tmp_path / "model.onnx", tmp_path / "dense.fp32.plan"
    onnx.save(proto, source)
    found, options = backend("tensorrt"), BuildOptions(batch_sizes=(1, 2))
    result = found.build(BuildRequest(source=source, engine=path, precision="fp32", num_classes=4, options=options))
    made = sidecar_of(
        path,
        achieved=result.achieved,
        backend="tensorrt",
        backend_version=found.facts().version,
        device=found.facts().device,
        machine=found.facts(to_jsonable(options)).machine,
        weight_bytes=result.weight_bytes,
        source_sha256=file_sha256(source),
        model="tiny",
        options=to_jsonable(options),
        facts=result.facts,
    )
    write_sidecar(path, made)
    return path


def _trtexec(folder: Path, *, ms: float) -> str:
    """Write a `trtexec` that keeps its arguments and tells that time."""
    path = folder / "trtexec"
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/arguments\ncat <<EOF\n{_SUMMARY.format(ms=ms)}EOF\n')
    path.chmod(0o755)
    return str(path)


def test_inspect_asks_the_runtime_itself(trtbench: Run, engine: Path) -> None:
    code, out, err = trtbench("inspect", str(engine))
    found = json.loads(trtbench("inspect", str(engine), "--json")[1])

    assert code == 0
    assert "Convolutions: 1 fp32" in out
    assert not err
    assert found["is_live"] is True
    assert found["layers"]["convolutions"] == {"conv": "fp32"}


def test_inspect_on_another_machine_tells_from_the_sidecar_alone(
    trtbench: Run, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTBENCH_DOUBLE_SM", "8.6")

    code, out, err = trtbench("inspect", str(engine))

    assert code == 0
    assert "Convolutions: 1 fp32" in out
    assert "from the sidecar only" in err
    assert "SM 8.6" in err


def test_inspect_with_another_tensorrt_tells_from_the_sidecar_alone(trtbench: Run, engine: Path) -> None:
    write_sidecar(engine, replace(read_sidecar(engine), backend_version="10.1.0.1"))

    assert "got one of 10.1.0.1" in trtbench("inspect", str(engine))[2]


def test_crosscheck_states_both_figures_and_warns_where_they_differ(
    trtbench: Run, engine: Path, tmp_path: Path
) -> None:
    quick = ("--duration", "0.01", "--warm-up", "1", "--trtexec", _trtexec(tmp_path, ms=1e6))

    code, out, err = trtbench("crosscheck", str(engine), "--batch-size", "2", *quick)

    assert code == 0
    assert "1000000.0000" in out
    assert "trtbench's median is -100.0% from trtexec's" in out
    assert "one at a time, as in a report, it takes" in out
    assert "warning: the figures differ by more than 5%" in err
    overlapped, alone = (line.split() for line in (tmp_path / "arguments").read_text().splitlines())
    assert {"--useProfile=1", "--shapes=input:2x3x8x8"} <= set(overlapped)
    assert alone == [*overlapped, "--exposeDMA"]
    is_10 = read_sidecar(engine).backend_version.startswith("10.")
    assert ({"--useCudaGraph", "--useSpinWait", "--noDataTransfers"} <= set(overlapped)) == is_10


def test_crosscheck_as_json_and_without_a_graph(trtbench: Run, engine: Path, tmp_path: Path) -> None:
    quick = ("--duration", "0.01", "--warm-up", "1", "--trtexec", _trtexec(tmp_path, ms=1e6))

    found = json.loads(trtbench("crosscheck", str(engine), "--no-cuda-graph", "--no-spin", "--json", *quick)[1])

    assert found["theirs"]["median_ms"] == 1e6
    assert found["ours"]["samples"] >= 30
    assert found["is_close"] is False
    assert found["settings"]["cuda_graph"] is False
    is_10 = read_sidecar(engine).backend_version.startswith("10.")
    assert "--useCudaGraph" not in found["command"]
    assert ("--noCudaGraph --noSpinWait" in found["command"]) != is_10  # 11 launches a graph unless it is told not to
    assert found["theirs"]["alone_ms"] > 0
    assert found["ours"]["alone_ms"] > 0


def test_crosscheck_says_where_our_side_ran_without_the_graph_that_was_asked_for(
    trtbench: Run, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.engines.cuda.cupy import CupyCuda
    from trtbench.errors import UnsupportedError

    def refuse(*_: object) -> None:
        raise UnsupportedError("no capture here")

    monkeypatch.setattr(CupyCuda, "capture", refuse)
    quick = ("--duration", "0.01", "--warm-up", "1", "--trtexec", _trtexec(tmp_path, ms=1e6))

    assert "ran without a CUDA graph (no capture here)" in trtbench("crosscheck", str(engine), *quick)[1]

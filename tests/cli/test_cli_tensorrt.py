"""`inspect` and `crosscheck` where TensorRT is not installed: what the sidecar tells, and the exit codes."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import onnx
import pytest

from tests.records import sidecar_of
from trtbench.engines.sidecar import write_sidecar
from trtbench.records import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.command import Answer


@pytest.fixture
def trtbench(monkeypatch: pytest.MonkeyPatch, command: Callable[..., Answer]) -> Callable[..., Answer]:
    """Run a command line in this process, where TensorRT cannot be imported."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    return command


_FACTS = {
    "gpu": "NVIDIA L4",
    "sm": "8.9",
    "driver": "570.10",
    "cuda": "12.8",
    "os": "Linux",
    "arch": "x86_64",
    "strongly_typed": True,
    "flags": [],
    "cleared_flags": ["TF32"],
    "optimization_level": 3,
    "profiles": [{"input": [[1, 3, 8, 8]] * 3}, {"input": [[1, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8]]}],
    "tensors": [{"name": "input", "mode": "INPUT", "shape": [-1, 3, 8, 8], "dtype": "FLOAT"}],
    "layers": {
        "layers": 9,
        "by_precision": {"int8": 3, "fp32": 1},
        "convolutions": {"conv1": "int8", "conv2": "fp32"},
        "reformats": 2,
        "unfused": 1,
        "quantizers": 12,
        "fused_quantizers": 11,
    },
    "trtexec": "trtexec --onnx=model.onnx",
}


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., str]:
    """Write an engine file of bytes and the sidecar of an INT8 build; keywords replace its fields."""

    def make(**changes: object) -> str:
        path = tmp_path / "dense.int8.plan"
        path.write_bytes(b"plan")
        fields: dict[str, object] = {
            "precision": "int8",
            "achieved": "int8 in 1 of 2 convolutions",
            "backend": "tensorrt",
            "backend_version": "10.16.1.11",
            "device": "NVIDIA L4",
            "machine": "Linux x86_64, NVIDIA L4, SM 8.9, CUDA 12 driver",
            "weight_bytes": 2,
            "preprocessing": Preprocessing(mean=(0.5,), std=(0.5,), size=8),
            "facts": _FACTS,
            "notes": ("requested int8, achieved 1 of 2 convolutions (1 fp32): conv2",),
            "rebuild": "trtbench build mine.yaml",
        }
        write_sidecar(path, sidecar_of(path, **fields | changes))
        return str(path)

    return make


def test_inspect_tells_from_the_sidecar_what_became_of_an_engine(
    trtbench: Callable[..., Answer], engine: Callable[..., str]
) -> None:
    answer = trtbench("inspect", engine())

    assert answer.code == 0
    for told in (
        "requested int8, achieved int8 in 1 of 2 convolutions",
        "tensorrt 10.16.1.11 on NVIDIA L4; bound to Linux x86_64, NVIDIA L4, SM 8.9, CUDA 12 driver",
        "Layers: 9; computing ones: 3 int8, 1 fp32; 2 reformat",
        "Convolutions: 1 int8, 1 fp32",
        "Q/DQ: 11 of 12 fused; 1 are layers",
        "strongly typed; flags set: none; cleared: TF32; level 3",
        "Built on: NVIDIA L4 (SM 8.9), driver 570.10, CUDA 12.8, Linux x86_64",
        "batchx3x8x8",
        "note: requested int8, achieved 1 of 2",
        "Build it again: trtbench build mine.yaml",
        "trtexec --onnx=model.onnx",
    ):
        assert told in answer.out
    assert "from the sidecar only: package 'tensorrt'" in answer.err


def test_inspect_as_json_is_one_object(trtbench: Callable[..., Answer], engine: Callable[..., str]) -> None:
    answer = trtbench("inspect", engine(), "--json")
    found = json.loads(answer.out)

    assert found["sidecar"]["facts"] == _FACTS
    assert found["layers"]["convolutions"] == {"conv1": "int8", "conv2": "fp32"}
    assert found["is_live"] is False
    assert "tensorrt" in found["why_not_live"]


def test_inspect_tells_of_a_runtime_that_has_no_inspector(
    trtbench: Callable[..., Answer], engine: Callable[..., str]
) -> None:
    answer = trtbench("inspect", engine(backend="onnxruntime-cpu", facts={}, notes=(), rebuild=""))

    assert answer.code == 0
    assert "requested int8, achieved" in answer.out
    assert "Layers:" not in answer.out
    assert "Build it again: trtbench build\n" in answer.out
    assert "from the sidecar only: onnxruntime-cpu has no inspector" in answer.err


def test_inspect_refuses_an_engine_of_other_bytes(trtbench: Callable[..., Answer], engine: Callable[..., str]) -> None:
    answer = trtbench("inspect", engine(engine_sha256="0" * 64))

    assert answer.code == 3
    assert "sha256" in answer.err


def test_crosscheck_without_trtexec_exits_5_with_the_cure(
    trtbench: Callable[..., Answer], engine: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    answer = trtbench("crosscheck", engine())

    assert answer.code == 5
    assert "NVIDIA's TensorRT archives and containers" in answer.err


def test_inspect_of_a_plain_onnx_file_describes_it_and_says_how_to_build_it(
    trtbench: Callable[..., Answer], tmp_path: Path
) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) { y = Relu(x) }'
    path = tmp_path / "user.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    shown = trtbench("inspect", str(path))
    assert shown.code == 0
    assert "no engine of ours; opset 17" in shown.out
    assert "x: float32 (n, 3, 4, 4)" in shown.out
    assert f"trtbench build --model onnx:{path}" in shown.out
    assert json.loads(trtbench("inspect", str(path), "--json").out)["operators"] == {"Relu": 1}
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "a pointer of Git LFS" in trtbench("inspect", str(path)).err

"""The verbs of fewer bits, on the command line and in a suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.command import Answer


@pytest.fixture
def run(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Answer]) -> Callable[[str], Any]:
    """Run a verb with --json in a folder that holds untrained weights; return its object, or the words of its error."""
    monkeypatch.chdir(tiny_weights)

    def call(arguments: str) -> Any:
        told = command(*arguments.split(), "--json")
        return told.err if told.code else told.json

    return call


_MODEL = "--model tiny_nets:resnet8 --checkpoint net.safetensors --size 8"


def test_quantize_scores_the_saved_file_and_names_what_stays_in_float(run: Callable[[str], Any]) -> None:
    source = run(f"quantize {_MODEL} --bits 4 --scheme symmetric --output s.tbz")
    assert source["float_layers"] == ["conv1", "fc"]
    best = run(f"quantize {_MODEL} --bits 2 --images 16 --output b.tbz")
    assert best["float_layers"] == []
    assert best["bytes"] < source["bytes"]
    assert 1 < best["bits_per_weight"] < 2.5
    assert {"correct", "total", "seconds"} <= best.keys()
    again = run("evaluate --model tiny_nets:resnet8 --checkpoint b.tbz --size 8")
    assert (again["correct"], again["total"]) == (best["correct"], 900)


@pytest.mark.slow
def test_quantize_trains_with_the_weights_rounded(run: Callable[[str], Any]) -> None:
    tuned = run(f"quantize {_MODEL} --bits ternary --images 16 --epochs 1 --output t.tbz --quiet")
    assert tuned["bits_per_weight"] < 2
    assert run(f"quantize {_MODEL} --bits ternary --scheme symmetric --output t.tbz").startswith("error: ")


def test_pack_and_unpack_tell_the_same_sha256(run: Callable[[str], Any], tmp_path: Path) -> None:
    packed = run("pack net.safetensors -o net.tbz")
    assert packed["is_lossless"]
    assert run("unpack net.tbz -o back.safetensors")["sha256"] == packed["sha256"]
    small = run("pack net.safetensors -o small.tbz --clusters 16 --half")
    assert small["ratio"] > 6
    (tmp_path / "net.tbz").write_bytes((tmp_path / "net.tbz").read_bytes()[:5000])
    assert "cut short" in run("unpack net.tbz -o back.safetensors")


def test_dynamic_int8_says_how_little_it_touches(run: Callable[[str], Any]) -> None:
    found = run(f"dynamic-int8 {_MODEL} --exporter torchscript --output d.onnx")
    assert (found["weights"], found["layers"]) == (640, 1)
    assert found["share"] < 0.009
    assert found["total"] == 900


@pytest.mark.slow
def test_qat_writes_the_graph_it_trained(run: Callable[[str], Any], tmp_path: Path) -> None:
    found = run(f"qat {_MODEL} --exporter torchscript --per-class 2 --method minmax --epochs 1 --output q --quiet")
    assert found["placement"] == "9 of 9 convolutions, 1 of 1 linear layers"
    assert {path.name for path in (tmp_path / "q").iterdir()} == {"model.onnx", "model.qdq.onnx", "ranges.json"}
    assert found["total"] == 900

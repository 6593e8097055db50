"""Zeros stay zero on every path that starts from a pruned checkpoint, with its masks recorded or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from onnx import numpy_helper

from trtbench.compress.weights import global_masks
from trtbench.models import build_model, load_model, save_model
from trtbench.models.masks import keep_zeros, masks_of, prunable_weights, set_to_zero, zeros_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    Run = Callable[[str], Any]

_NAME = "tiny_nets:resnet8"
_BUDGET = "--epochs 1 --batch-size 9 --lr 0.05 --augment-crop-padding 1"
_WRITES = {
    "train": f"train {_BUDGET} --output out",
    "train with an average": f"train {_BUDGET} --ema 0.5 --output out",
    "prune": f"prune --ratio 0.5 --round-to 4 {_BUDGET} --output out.safetensors",
    "sparsify less": "sparsify --sparsity 0.3 --output out.safetensors",
    "sparsify by curvature": (
        "sparsify --method second-order --sparsity 0.3 --steps 1 --images 12 --output out.safetensors"
    ),
    "sparsify to a pattern": "sparsify --method nm --second-order --images 12 --output out.safetensors",
    "sparsify as it learns": (
        "sparsify --sparsity 0.3 --schedule iterative --ramp 2 --epochs 2 --batch-size 9"
        " --augment-crop-padding 1 --output out.safetensors"
    ),
    "quantize asymmetric": f"quantize --scheme asymmetric --bits 4 {_BUDGET} --output out.tbz",
    "quantize symmetric": f"quantize --scheme symmetric --bits 4 {_BUDGET} --output out.tbz",
    "quantize best": f"quantize --scheme best --bits 4 --images 12 {_BUDGET} --output out.tbz",
}


@pytest.fixture
def run(images: Path, answer: Run) -> Run:
    """Run a step on the pruned network in a folder of its own, and return its JSON."""
    return lambda arguments: answer(f"{arguments} --model {_NAME} --data folder:{images} --size 8")


def _pruned() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model(_NAME, num_classes=3).eval()
    weights = prunable_weights(network)
    masks = global_masks(weights, sparsity=0.79)
    set_to_zero(weights, masks)
    return network


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The file of a network with 79 % of its weights at zero, as others save it."""
    torch.save(_pruned().state_dict(), tmp_path / "pruned.pth")
    return tmp_path / "pruned.pth"


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """The same as we save it."""
    network = _pruned()
    keep_zeros(network, zeros_of(network))
    save_model(tmp_path / "pruned.safetensors", network, name=_NAME, num_classes=3, metadata={})
    return tmp_path / "pruned.safetensors"


def _written(folder: Path) -> nn.Module:
    path = next(one for one in folder.glob("out*") if one.suffix not in {".csv", ".png"})
    path = path / "model.safetensors" if path.is_dir() else path
    return load_model(_NAME, num_classes=3, checkpoint=path).model


@pytest.mark.parametrize(
    "what", [pytest.param(one, marks=pytest.mark.slow) if "best" in one else one for one in _WRITES]
)
def test_zeros_stay_zero(run: Run, pruned: Path, tmp_path: Path, what: str) -> None:
    told = run(f"{_WRITES[what]} --checkpoint {pruned}")

    found = _written(tmp_path)
    weights = prunable_weights(found)
    if what == "prune":  # the channels are others
        zeros = sum(int((weight == 0).sum()) for weight in weights.values())
        assert zeros == sum(int((~mask).sum()) for mask in masks_of(found).values())
        assert zeros / sum(weight.numel() for weight in weights.values()) > 0.5
    else:
        before = zeros_of(_pruned())
        assert all(not weights[name][~mask].any() for name, mask in before.items())
        assert all(not (masks_of(found)[name] & ~mask).any() for name, mask in before.items())
    assert any("zeros stay zero in" in note for note in told["notes"])


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_zeros_stay_zero_in_graphs_that_learn_and_in_their_codes(
    run: Run, pruned: Path, tmp_path: Path, rounding: str
) -> None:
    budget = "--epochs 1 --lr 0.01 --batch-size 9 --augment-crop-padding 1"
    options = f"--per-class 2 --method minmax --rounding {rounding} --set export.exporter=torchscript"
    run(f"qat {budget} {options} --output out --checkpoint {pruned}")

    before = zeros_of(_pruned())
    for name in ("model.onnx", "model.qdq.onnx"):
        arrays = {one.name: numpy_helper.to_array(one) for one in onnx.load(tmp_path / "out" / name).graph.initializer}
        for layer, mask in before.items():
            assert not arrays[f"{layer}.weight"][~mask.numpy()].any(), f"{layer} in {name}"


@pytest.mark.parametrize("what", ["train", "quantize symmetric"])
def test_zeros_of_a_file_without_masks_stay_zero_too(run: Run, foreign: Path, tmp_path: Path, what: str) -> None:
    told = run(f"{_WRITES[what]} --checkpoint {foreign}")

    weights = prunable_weights(_written(tmp_path))
    assert all(not weights[name][~mask].any() for name, mask in zeros_of(_pruned()).items())
    assert any("look pruned; --dense" in note for note in told["notes"])


def test_dense_lets_every_weight_learn(run: Run, foreign: Path, tmp_path: Path) -> None:
    run(f"train {_BUDGET} --dense --output out --checkpoint {foreign}")

    weights = prunable_weights(_written(tmp_path)).values()
    left = sum(int((weight == 0).sum()) for weight in weights)
    assert left < 0.1 * sum(weight.numel() for weight in weights)  # few have no gradient in so short a time

"""The floors of fixed point and codec on a real ResNet-20 and original CIFAR-10 images, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trtbench.compress.codec import pack_checkpoint
from trtbench.steps import accuracy, packed_network, step
from trtbench.suite import DataConfig, adhoc_suite

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.suite import Suite

pytestmark = [pytest.mark.shared, pytest.mark.slow]


@pytest.fixture(scope="module")
def data(cifar10_lossless: Path) -> DataConfig:
    return DataConfig(source=f"folder:{cifar10_lossless}", mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))


def _suite(checkpoint: Path, data: DataConfig, **sections: Any) -> Suite:
    return adhoc_suite(model={"name": "resnet20", "checkpoint": checkpoint}, data=data, **sections)


@pytest.mark.parametrize(("bits", "floor"), [(4, 0.913), (3, 0.910), (2, 0.865)])
def test_rebuilt_weights_keep_their_accuracy(
    weights: Path, data: DataConfig, tmp_path: Path, bits: int, floor: float
) -> None:
    variant = {"kind": "fixed_point", "bits": bits}
    output = tmp_path / "net.tbz"
    found = step(_suite(weights / "yi-resnet20-pretrained.pt", data, variants=variant), packed_network, output)
    assert found.total == 1017
    assert found.top1 >= floor
    assert found.float_layers == ()
    assert found.bits_per_weight < bits + 0.2
    assert found.bytes == output.stat().st_size
    if bits == 2:
        small = pack_checkpoint(output, output=tmp_path / "small.tbz", is_halved=True)
        assert small.bytes <= 70_000
        assert step(_suite(tmp_path / "small.tbz", data), accuracy, None).top1 >= 0.90


@pytest.mark.parametrize(("scheme", "correct"), [("asymmetric", 914)])
def test_the_sources_quantizer_scores_what_it_scored(
    weights: Path, data: DataConfig, tmp_path: Path, scheme: str, correct: int
) -> None:
    variant = {"kind": "fixed_point", "bits": 4, "scheme": scheme}
    suite = _suite(weights / "yi-resnet20-pretrained.pt", data, variants=variant)
    found = step(suite, packed_network, tmp_path / "net.tbz")
    assert found.correct == correct  # 89.87 %; the source's own ten thousand images give 89.73
    assert found.float_layers == ("conv1", "fc")

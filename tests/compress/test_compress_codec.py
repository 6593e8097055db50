"""Weight sharing, half precision, and checkpoints as the codec reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from trtbench.compress.codec import halve, pack_checkpoint, read_state, share_weights, unpack_checkpoint
from trtbench.errors import CheckpointError, ConfigError
from trtbench.models import save_model
from trtbench.models.container import Grid, PackedState, save_packed, to_bytes
from trtbench.models.masks import keep_zeros, set_to_zero

if TYPE_CHECKING:
    from pathlib import Path


def _sparse(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(16, 8, 3, 3)) * (rng.random((16, 8, 3, 3)) > 0.5)
    return torch.from_numpy(values.astype(np.float32))


def test_shared_weights_are_the_means_of_their_clusters() -> None:
    weight = _sparse()
    shared = share_weights(PackedState(tensors={"w": weight}), clusters=8).values()["w"]
    assert torch.equal(shared == 0, weight == 0)
    levels = torch.unique(shared[shared != 0])
    assert len(levels) == 8
    for level in levels:  # Lloyd's condition: each value is the mean of what it stands for
        assert weight[shared == level].mean().item() == pytest.approx(level.item(), abs=5e-3)
    nearest = levels[(weight[weight != 0][:, None] - levels).abs().argmin(1)]
    assert (nearest == shared[weight != 0]).float().mean() > 0.99


def test_few_values_biases_and_grids_are_left_as_they_are() -> None:
    few, bias = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.rand(50)
    grid = Grid(codes=torch.ones(2, 2, dtype=torch.int32), scales=torch.ones(2))
    state = share_weights(PackedState(tensors={"few": few, "bias": bias, "grid": grid}), clusters=2)
    assert state.tensors["few"] is few
    assert state.tensors["bias"] is bias
    assert state.tensors["grid"] is grid


@pytest.mark.parametrize("clusters", [0, 4096])
def test_a_number_of_clusters_that_cannot_be_is_refused(clusters: int) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 4095"):
        share_weights(PackedState(tensors={}), clusters=clusters)


def test_half_precision_leaves_what_it_cannot_hold() -> None:
    grid = Grid(codes=torch.ones(1, dtype=torch.int32), scales=torch.tensor([0.1]))
    tensors = {"fine": torch.rand(100), "large": torch.tensor([1e6]), "tiny": torch.tensor([1e-30])}
    found = halve(PackedState(tensors={**tensors, "grid": grid, "count": torch.tensor(70_000)})).tensors
    assert torch.equal(found["fine"], tensors["fine"].half().float())  # type: ignore[arg-type]  # a plain tensor
    assert found["large"].item() == 1e6  # type: ignore[union-attr]  # likewise
    assert found["tiny"] is tensors["tiny"]
    assert found["grid"] is grid
    assert found["count"].item() == 70_000  # type: ignore[union-attr]  # likewise


def test_packing_loses_nothing_unless_asked_to(tmp_path: Path) -> None:
    path, packed, back = (tmp_path / name for name in ("net.pth", "net.tbz", "net.safetensors"))
    torch.save({"state_dict": {"w": _sparse(), "bn.weight": torch.rand(16), "count": torch.tensor(3)}}, path)
    found = pack_checkpoint(path, output=packed)
    assert found.is_lossless
    assert found.bytes == packed.stat().st_size
    assert found.dense_bytes == 4 * (16 * 72 + 16 + 1)
    assert found.ratio == found.dense_bytes / found.bytes > 1.4
    unpacked = unpack_checkpoint(packed, output=back)
    assert unpacked.sha256 == found.sha256
    assert pack_checkpoint(back, output=tmp_path / "again.tbz").sha256 == found.sha256
    lossy = pack_checkpoint(path, output=packed, clusters=8, is_halved=True)
    assert not lossy.is_lossless
    assert lossy.bytes < 0.4 * found.bytes


def test_a_packed_file_keeps_the_sign_of_zeros(tmp_path: Path) -> None:
    weight = torch.where(_sparse() == 0, -0.0, _sparse())
    torch.save({"w": weight}, tmp_path / "net.pth")
    assert pack_checkpoint(tmp_path / "net.pth", output=tmp_path / "net.tbz").is_lossless
    found = read_state(tmp_path / "net.tbz").values()["w"]
    assert torch.equal(found.view(torch.int32), weight.view(torch.int32))


def test_a_packed_file_keeps_what_a_file_of_ours_says_of_itself(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 4))
    mask = torch.eye(4, dtype=torch.bool)
    keep_zeros(network, {"0": mask})
    set_to_zero({"0": network.get_parameter("0.weight")}, {"0": mask})
    save_model(tmp_path / "net.safetensors", network, name="mine", num_classes=4, metadata={})
    pack_checkpoint(tmp_path / "net.safetensors", output=tmp_path / "net.tbz")
    facts = read_state(tmp_path / "net.tbz").facts
    assert (facts["name"], facts["masks"]) == ("mine", {"0": None})


def test_a_packed_file_keeps_its_grids(tmp_path: Path) -> None:
    path = tmp_path / "net.tbz"
    grid = Grid(codes=torch.ones(2, 2, dtype=torch.int32), scales=torch.rand(2))
    state = PackedState(tensors={"w": grid}, facts={"name": "x"})
    save_packed(path, state)
    assert to_bytes(read_state(path)) == to_bytes(state)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.rand(2, 2), "index": torch.zeros(2, dtype=torch.int8)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"index: expected float or int64 numbers, got torch\.int8"):
        read_state(tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="No such file"):
        read_state(tmp_path / "none.pth")

"""Which GPU is used: the first that CUDA sees, named by its number or its UUID, and never another one's name."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from trtbench.environment import Gpu, MigSlice, conflicts, missing_for_tensorrt, overview, using_gpu
from trtbench.errors import CapabilityError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.environment import Environment

    Machine = Callable[..., Environment]

_SLICES = (MigSlice(uuid="MIG-c0", name="1g.10gb"), MigSlice(uuid="MIG-c1", name="1g.10gb"))
_GPUS = tuple(
    Gpu(index=index, uuid=uuid, name=name, compute_capability=sm)
    for index, (uuid, name, sm) in enumerate(
        [("GPU-aa1", "V100", (7, 0)), ("GPU-aa2", "A100", (8, 0)), ("GPU-c", "H100", (9, 0))]
    )
)
_GPUS = (*_GPUS[:2], replace(_GPUS[2], mig_is_on=True, mig_slices=_SLICES))


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["V100", "A100", "H100"]),
        ("1", ["A100"]),
        ("1,0", ["A100", "V100"]),
        ("1,-1,0", ["A100"]),
        ("GPU-aa2", ["A100"]),
        (" GPU-aa2 , 0", ["A100", "V100"]),
        ("MIG-c1", ["H100"]),
        ("", []),
    ],
)
def test_gpus_are_those_that_cuda_sees_in_its_order(machine: Machine, visible: str | None, names: list[str]) -> None:
    found = machine(gpus=_GPUS, cuda=(13, 0), cuda_visible_devices=visible)

    assert [gpu.name for gpu in found.usable_gpus] == names


@pytest.fixture
def here(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a machine of three GPUs, the first of which somebody hid."""

    def collected() -> Environment:
        return machine(gpus=_GPUS, cuda=(13, 0), cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"))

    monkeypatch.setattr(overview, "collect_environment", collected)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("device", "uuid"),
    [
        ("cuda:0", "GPU-aa2"),
        ("cuda:1", "GPU-c"),
        ("1", "GPU-c"),
        ("GPU-aa2", "GPU-aa2"),
        ("GPU-a", "GPU-aa2"),
        ("MIG-c1", "MIG-c1"),
    ],
)
def test_one_gpu_is_seen_by_this_process_and_those_it_starts(device: str, uuid: str) -> None:
    with using_gpu(device):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == uuid
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"


@pytest.mark.usefixtures("here")
def test_without_a_device_what_is_visible_stays_and_an_order_of_somebodys_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    with using_gpu(None):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"
        assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("device", ["cuda:2", "GPU-aa1", "GPU-zz", "MIG-c", "cpu"])
def test_a_gpu_that_is_not_seen_is_refused_with_those_that_are(device: str) -> None:
    got = "several UUIDs" if device == "MIG-c" else "got cuda:0 A100 GPU-aa2, cuda:1 H100 GPU-c"
    with pytest.raises(CapabilityError, match=got), using_gpu(device):
        raise AssertionError


@pytest.mark.usefixtures("here")
def test_another_gpu_than_the_one_in_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "is_cuda_in_use", lambda: True)
    with using_gpu("cuda:0"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aa2"
    with pytest.raises(CapabilityError, match="in a fresh process"), using_gpu("cuda:1"):
        raise AssertionError


def test_tensorrt_is_judged_by_the_gpu_that_is_used(machine: Machine) -> None:
    packages = ("tensorrt/tensorrt-cu12==10.13.0",)
    first = machine(*packages, gpus=_GPUS, cuda=(12, 8))
    second = machine(*packages, gpus=_GPUS, cuda=(12, 8), cuda_visible_devices="1")

    assert "SM 7.5" in missing_for_tensorrt(first)[0].reason
    assert missing_for_tensorrt(second) == ()


def test_an_order_of_another_kind_is_a_warning_where_there_are_several(machine: Machine) -> None:
    found = conflicts(machine(gpus=_GPUS, cuda=(12, 8), cuda_device_order="FASTEST_FIRST"))

    assert any("CUDA_DEVICE_ORDER=FASTEST_FIRST" in one.what for one in found)
    assert not any(
        "CUDA_DEVICE_ORDER" in one.what
        for one in conflicts(machine(gpus=_GPUS[:1], cuda=(12, 8), cuda_device_order="FASTEST_FIRST"))
    )

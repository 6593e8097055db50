"""An engine is loaded only on the GPU, driver and TensorRT version it belongs to; a portable one on more of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from trtbench.engines.cuda.device import DeviceFacts
from trtbench.engines.tensorrt.plan import machine_of, refuse_hardware, refuse_version
from trtbench.errors import SidecarError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.engines.sidecar import Sidecar

_A100 = DeviceFacts(
    name="NVIDIA A100-SXM4-40GB",
    uuid="GPU-11111111-2222-3333-4444-555555555555",
    compute_capability=(8, 0),
    driver="550.54.14",
    runtime="12.8",
)
_L4 = replace(_A100, name="NVIDIA L4", compute_capability=(8, 9))
_T4 = replace(_A100, name="Tesla T4", compute_capability=(7, 5))
_HOST = "Linux x86_64"


def test_a_machine_is_system_gpu_compute_capability_and_driver_family() -> None:
    assert machine_of(_A100, {}, system=_HOST) == "Linux x86_64, NVIDIA A100-SXM4-40GB, SM 8.0, CUDA 12 driver"
    assert machine_of(_A100, {}).endswith(", NVIDIA A100-SXM4-40GB, SM 8.0, CUDA 12 driver")


@pytest.mark.parametrize(
    "other",
    [
        replace(_A100, name="NVIDIA A100 80GB PCIe"),
        replace(_A100, compute_capability=(8, 6)),
        replace(_A100, driver="580.65.06"),
        replace(_A100, uuid="MIG-11111111-2222-3333-4444-555555555555"),
    ],
    ids=["model", "sm", "driver", "slice"],
)
def test_another_gpu_driver_family_or_slice_is_another_machine(other: DeviceFacts) -> None:
    assert machine_of(other, {}, system=_HOST) != machine_of(_A100, {}, system=_HOST)


@pytest.mark.parametrize(
    "same",
    [
        replace(_A100, driver="560.35.03"),
        replace(_A100, driver="CUDA 12.8"),
        replace(_A100, uuid="GPU-another-one-of-the-same-kind"),
    ],
    ids=["driver update", "driver told by CUDA", "sister card"],
)
def test_a_driver_update_or_a_sister_card_is_the_same_machine(same: DeviceFacts) -> None:
    assert machine_of(same, {}, system=_HOST) == machine_of(_A100, {}, system=_HOST)


def test_a_driver_nobody_knows_is_called_unknown() -> None:
    assert machine_of(replace(_A100, driver=""), {}, system=_HOST).endswith("CUDA unknown driver")


def test_a_hardware_compatible_engine_belongs_to_every_gpu_from_ampere_on() -> None:
    options = {"hardware_compatible": True}

    assert machine_of(_A100, options, system=_HOST) == machine_of(_L4, options, system=_HOST)
    assert machine_of(_T4, options, system=_HOST) != machine_of(_A100, options, system=_HOST)
    assert machine_of(_A100, options, system="Windows AMD64") != machine_of(_A100, options, system=_HOST)


def test_hardware_compatibility_begins_at_ampere() -> None:
    refuse_hardware(_A100, is_hardware_compatible=True)
    refuse_hardware(_T4, is_hardware_compatible=False)

    with pytest.raises(UnsupportedError, match=r"SM 7\.5.*8\.0 or later"):
        refuse_hardware(_T4, is_hardware_compatible=True)


@pytest.mark.parametrize("here", ["10.16.1.12", "10.16.0.11", "10.13.3.9", "11.4.0.106"])
def test_an_engine_is_bound_to_all_four_parts_of_its_version(here: str, sidecar: Callable[..., Sidecar]) -> None:
    made = sidecar(backend_version="10.16.1.11", rebuild="trtbench build mine")

    refuse_version(made, version="10.16.1.11")
    with pytest.raises(SidecarError, match=rf"expected one of TensorRT {here}.*10\.16\.1\.11.*`trtbench build mine`"):
        refuse_version(made, version=here)


def test_a_version_compatible_engine_loads_in_later_versions_but_not_in_earlier_ones(
    sidecar: Callable[..., Sidecar],
) -> None:
    made = sidecar(backend_version="10.16.1.11", options={"version_compatible": True})

    for later in ("10.16.1.11", "10.17.0.1", "11.4.0.106"):
        refuse_version(made, version=later)
    with pytest.raises(SidecarError, match="for it and later versions; build it here: `trtbench build`"):
        refuse_version(made, version="10.13.3.9")

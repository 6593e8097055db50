from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trtbench.environment import (
    CAPABILITIES,
    Environment,
    Gpu,
    MigSlice,
    capabilities,
    demand,
    missing,
    missing_for_tensorrt,
)
from trtbench.environment.verdicts import install_tensorrt
from trtbench.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

# NVIDIA's support matrices: which precision each generation has in hardware at a useful rate
_EXPECTED = {
    "H100": {"fp16", "bf16", "tf32", "int8", "fp8", "2:4", "amp", "tensorrt"},
    "B200": {"fp16", "bf16", "tf32", "int8", "fp8", "fp4", "2:4", "amp", "tensorrt"},
    "L4": {"fp16", "bf16", "tf32", "int8", "fp8", "2:4", "amp", "tensorrt"},
    "A100": {"fp16", "bf16", "tf32", "int8", "2:4", "amp", "tensorrt"},
    "T4": {"fp16", "int8", "amp", "tensorrt"},
    "V100": {"fp16", "int8", "amp"},
    "GTX 1080": {"int8"},
    "P100": {"fp16"},
    "M40": set(),
}


@pytest.mark.parametrize("name", _EXPECTED)
def test_a_gpu_can_do_what_its_generation_can_do(name: str, gpu: Callable[..., Gpu]) -> None:
    found = capabilities(gpu(name))

    assert [one.name for one in found] == list(CAPABILITIES)
    assert {one.name for one in found if one.is_available} == _EXPECTED[name]


@pytest.mark.parametrize("name", _EXPECTED)
def test_every_verdict_has_a_reason_and_every_no_a_cure(name: str, gpu: Callable[..., Gpu]) -> None:
    for one in capabilities(gpu(name)):
        assert one.reason
        assert bool(one.cure) is not one.is_available


def test_fp8_names_the_rows_that_use_it_and_fp4_says_that_none_does(gpu: Callable[..., Gpu]) -> None:
    reasons = {one.name: one.reason for one in capabilities(gpu("B200"))}

    assert "fp8 and fp8+fp16" in reasons["fp8"]
    assert "no row does" in reasons["fp4"]


def test_int8_by_dp4a_is_told_from_tensor_cores(gpu: Callable[..., Gpu]) -> None:
    reasons = {name: {c.name: c.reason for c in capabilities(gpu(name))}["int8"] for name in ("V100", "T4", "A100")}

    assert "DP4A only" in reasons["V100"]
    assert "GTX 16xx has none" in reasons["T4"]
    assert "GTX 16xx" not in reasons["A100"]


def test_a_gpu_without_int8_is_told_which_has_tensor_cores_for_it(gpu: Callable[..., Gpu]) -> None:
    cures = {c.name: c.cure for c in capabilities(gpu("P100"))}

    assert "7.5" in cures["int8"]


def test_slow_fp16_names_its_rate(gpu: Callable[..., Gpu]) -> None:
    reasons = {
        name: {c.name: c.reason for c in capabilities(gpu(name))}["fp16"] for name in ("GTX 1080", "P100", "M40")
    }

    assert "1/64" in reasons["GTX 1080"]
    assert "twice the FP32 rate" in reasons["P100"]
    assert "5.2" in reasons["M40"]


def test_a_demand_that_is_met_passes(machine: Callable[..., Environment]) -> None:
    environment = machine("tensorrt/tensorrt-cu12==10.16.1.11", gpus=("H100",), cuda=(12, 8))

    demand(environment, require=("gpu", "fp16", "int8", "fp8", "tensorrt"))


def test_a_demand_that_is_not_met_names_each_lack_with_its_reason_and_cure(machine: Callable[..., Environment]) -> None:
    environment = machine(gpus=("T4",), cuda=(12, 4))

    with pytest.raises(CapabilityError) as caught:
        demand(environment, require=("fp16", "fp8", "tensorrt"))

    assert caught.value.exit_code == 5
    message = str(caught.value)
    assert "no fp8 (FP8 tensor cores need SM 8.9, this is SM 7.5)" in message
    assert "no tensorrt (TensorRT is not installed)" in message
    assert "use a GPU of SM 8.9 or later; pip install 'trtbench[cu12]'" in message
    assert "no fp16" not in message


def test_one_gpu_must_offer_all_that_is_demanded(machine: Callable[..., Environment]) -> None:
    environment = machine(gpus=("V100", "T4", "A100"), cuda=(12, 8))

    assert missing(environment, require=("int8", "bf16")) == ()
    assert [lack.name for lack in missing(environment, require=("fp8", "2:4"))] == ["fp8"]


def test_without_a_gpu_the_reason_is_said_once(machine: Callable[..., Environment]) -> None:
    with pytest.raises(CapabilityError) as caught:
        demand(machine(), require=("fp16", "int8"))

    assert caught.value.got == "no fp16, int8 (no CUDA device)"
    assert "--gpus all" in caught.value.cure


def test_a_demand_for_nothing_is_met_by_a_machine_without_a_gpu(machine: Callable[..., Environment]) -> None:
    demand(machine(), require=())


@pytest.mark.parametrize("gpus", [(), ("H100",)])
def test_an_unknown_requirement_lists_the_known_ones(
    gpus: tuple[str, ...], machine: Callable[..., Environment]
) -> None:
    with pytest.raises(ConfigError, match=r"gpu, fp16, bf16.*got 'fp17'") as caught:
        missing(machine(gpus=gpus), require=("int8", "fp17"))

    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("visible", "is_hidden"),
    [
        (None, False),
        ("", True),
        ("-1", True),
        ("NoDevFiles", True),
        ("0", False),
        ("0,7", False),
        ("1,0", True),  # CUDA stops at the first entry that is no device
        ("GPU-H1", False),
        ("GPU-8a", True),
        ("MIG-8a", True),
    ],
)
def test_cuda_visible_devices_can_hide_every_gpu(
    visible: str | None, machine: Callable[..., Environment], *, is_hidden: bool
) -> None:
    environment = machine(gpus=("H100",), cuda=(13, 0), cuda_visible_devices=visible)

    lacks = missing(environment, require=("gpu",))

    assert bool(lacks) is is_hidden
    if lacks:
        assert lacks[0].reason == f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"
        assert lacks[0].cure == "unset CUDA_VISIBLE_DEVICES"


def test_a_gpu_in_mig_mode_is_usable_through_its_slices_only(
    machine: Callable[..., Environment], gpu: Callable[..., Gpu]
) -> None:
    one_slice = MigSlice(uuid="MIG-1", name="NVIDIA H100 MIG 1g.10gb")
    bare = machine(gpus=(gpu("H100", mig_is_on=True),), cuda=(13, 0))
    sliced = machine(gpus=(gpu("H100", mig_is_on=True, mig_slices=(one_slice,)),), cuda=(13, 0))

    assert "nvidia-smi mig -cgi" in missing(bare, require=("int8",))[0].cure
    assert missing(sliced, require=("int8", "fp8")) == ()


@pytest.mark.parametrize(
    ("package", "cuda", "reason"),
    [
        (None, (12, 4), "TensorRT is not installed"),
        ("tensorrt/tensorrt==8.6.1", (12, 4), "tensorrt 8.6.1 is neither 10.x nor 11.x"),
        ("tensorrt/tensorrt-cu13==10.13.3.9", (12, 4), "needs a driver for CUDA 13, this one ends at CUDA 12"),
    ],
)
def test_tensorrt_lacks_an_installation_that_fits(
    package: str | None, cuda: tuple[int, int], reason: str, machine: Callable[..., Environment]
) -> None:
    environment = machine(*filter(None, [package]), gpus=("T4",), cuda=cuda)

    (lack,) = missing_for_tensorrt(environment)

    assert reason in lack.reason
    assert lack.cure == "pip install 'trtbench[cu12]'"
    assert missing(environment, require=("tensorrt",)) == (lack,)


@pytest.mark.parametrize("package", ["tensorrt-cu12==10.16.1.11", "tensorrt-cu13==11.4.0.106", "tensorrt==10.13.2.6"])
def test_tensorrt_10_and_11_are_ready_on_a_gpu_and_driver_that_run_them(
    package: str, machine: Callable[..., Environment]
) -> None:
    assert missing_for_tensorrt(machine(f"tensorrt/{package}", gpus=("H100",), cuda=(13, 0))) == ()


def test_volta_on_a_new_driver_is_sent_to_cuda_12_and_to_no_tensorrt(machine: Callable[..., Environment]) -> None:
    environment = machine(gpus=("V100",), cuda=(13, 0))

    assert [lack.reason for lack in missing_for_tensorrt(environment)] == [
        "TensorRT 10.5 and later need SM 7.5, this is SM 7.0"
    ]
    assert install_tensorrt(environment) == "pip install 'trtbench[cu12-base]'"
    assert install_tensorrt(machine(gpus=("H100",), cuda=(13, 0))) == "pip install 'trtbench[cu13]'"


def test_volta_lacks_tensorrt_whatever_is_installed(machine: Callable[..., Environment]) -> None:
    environment = machine("tensorrt/tensorrt-cu12==10.16.1.11", gpus=("V100",), cuda=(12, 8))

    (lack,) = missing_for_tensorrt(environment)

    assert lack.reason == "TensorRT 10.5 and later need SM 7.5, this is SM 7.0"
    assert missing(environment, require=("tensorrt",)) == (lack,)


def test_a_gpu_that_tensorrt_supports_is_enough_where_it_is_the_one_that_is_used(
    machine: Callable[..., Environment],
) -> None:
    environment = machine("tensorrt/tensorrt-cu12==10.16.1.11", gpus=("T4", "V100"), cuda=(12, 8))

    assert missing_for_tensorrt(environment) == ()
    assert missing(environment, require=("tensorrt", "int8")) == ()

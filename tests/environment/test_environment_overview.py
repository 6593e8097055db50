from __future__ import annotations

import json
from typing import TYPE_CHECKING

from trtbench.environment import Cpu, Driver, Environment, Gpu, Host, MigSlice, gpu_info
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_machine_without_a_gpu_is_told_so_in_one_sentence(machine: Callable[..., Environment]) -> None:
    info = gpu_info(machine())

    assert info.summary == (
        "No GPU can be used (no CUDA device): engines run on the CPU with ONNX Runtime (onnxruntime-cpu)."
    )
    assert info.gpus == ()
    assert not info.tensorrt_ready
    assert info.tensorrt_missing[0].startswith("no CUDA device: run on a machine with an NVIDIA GPU")
    assert info.tensorrt_missing[1].startswith("TensorRT is not installed: pip install 'trtbench[cu12]'")


def test_a_ready_machine_lacks_nothing(machine: Callable[..., Environment]) -> None:
    info = gpu_info(machine("tensorrt/tensorrt-cu13==10.16.1.11", gpus=("H100", "T4"), cuda=(13, 0)))

    assert info.summary == "2 usable GPUs: H100 (SM 9.0), T4 (SM 7.5); driver 1.0 runs up to CUDA 13.0."
    assert info.tensorrt_ready
    assert info.tensorrt_missing == ()
    assert [report.gpu.name for report in info.gpus] == ["H100", "T4"]
    assert {c.name: c.is_available for c in info.gpus[1].capabilities}["fp8"] is False


def test_one_gpu_is_counted_in_the_singular(machine: Callable[..., Environment]) -> None:
    assert gpu_info(machine(gpus=("T4",))).summary == (
        "1 usable GPU: T4 (SM 7.5); driver None runs up to an unknown CUDA."
    )


def test_a_gpu_that_is_hidden_is_still_listed(machine: Callable[..., Environment]) -> None:
    info = gpu_info(machine(gpus=("H100",), cuda=(13, 0), cuda_visible_devices=""))

    assert "CUDA_VISIBLE_DEVICES='' hides every GPU" in info.summary
    assert len(info.gpus) == 1


def test_a_driver_that_does_not_answer_is_told_from_no_driver() -> None:
    cpu = Cpu(model="a processor", architecture="x86_64", logical_cores=1)
    host = Host(os="Linux", kernel="6.8", python="3.12.3", cpu=cpu)

    info = gpu_info(Environment(host=host, driver=Driver(problem="Driver/library version mismatch")))

    assert "the NVIDIA driver does not answer: Driver/library version mismatch" in info.summary
    assert "reboot" in info.tensorrt_missing[0]


def test_the_missing_tensorrt_names_the_extra_that_fits_the_driver(machine: Callable[..., Environment]) -> None:
    for cuda, extra in (((12, 4), "cu12"), ((13, 0), "cu13")):
        info = gpu_info(machine(gpus=("T4",), cuda=cuda))

        assert info.tensorrt_missing == (f"TensorRT is not installed: pip install 'trtbench[{extra}]'",)


def test_the_record_becomes_json_and_back(machine: Callable[..., Environment], gpu: Callable[..., Gpu]) -> None:
    slices = (MigSlice(uuid="MIG-1", name="H100 MIG 1g.10gb", memory_bytes=10**10),)
    info = gpu_info(
        machine("torch==2.15.0+cu132", gpus=(gpu("H100", mig_is_on=True, mig_slices=slices),), cuda=(12, 4))
    )

    read = json.loads(json.dumps(to_jsonable(info)))

    assert read["gpus"][0]["gpu"]["mig_slices"][0]["memory_bytes"] == 10**10
    assert read["gpus"][0]["gpu"]["compute_capability"] == [9, 0]
    assert read["driver"]["cuda"] == [12, 4]
    assert read["conflicts"][0]["level"] == "error"
    assert read["packages"][1] == {"module": "torch", "distribution": "torch", "version": "2.15.0", "cuda": "13.2"}

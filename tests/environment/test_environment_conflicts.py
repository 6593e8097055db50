from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trtbench.environment import Cpu, Driver, Environment, Host, conflicts
from trtbench.environment.verdicts import REQUIREMENTS_OF_EXTRAS

if TYPE_CHECKING:
    from collections.abc import Callable

_PROJECT = Path(__file__).parents[2]
CU12 = ("torch==2.10.0+cu128", "onnxruntime/onnxruntime-gpu==1.26.0", "cupy/cupy-cuda12x==14.2.0", "numpy==2.4.6")
CU13 = ("torch==2.15.0+cu132", "onnxruntime/onnxruntime-gpu==1.31.1", "cupy/cupy-cuda13x==14.2.0", "numpy==2.4.6")
TENSORRT_CU12 = "tensorrt/tensorrt-cu12==10.16.1.11"
TENSORRT_CU13 = "tensorrt/tensorrt-cu13==10.16.1.11"


@pytest.mark.parametrize(
    ("packages", "card", "cuda"),
    [
        ((*CU12, TENSORRT_CU12), "T4", (12, 4)),
        ((*CU12, TENSORRT_CU12), "H100", (13, 0)),  # CUDA 12 wheels run on newer drivers
        ((*CU13, TENSORRT_CU13), "H100", (13, 0)),
        ((*CU13, TENSORRT_CU12), "H100", (13, 0)),  # TensorRT carries its own CUDA
        ((*CU13, TENSORRT_CU13), "L4", (13, 2)),  # SM 8.9 runs code for SM 8.6
        (CU12, "V100", (12, 8)),
    ],
)
def test_a_fitting_set_has_no_conflict(
    packages: tuple[str, ...], card: str, cuda: tuple[int, int], machine: Callable[..., Environment]
) -> None:
    assert conflicts(machine(*packages, gpus=(card,), cuda=cuda)) == ()


@pytest.mark.parametrize("packages", [CU12, CU13, CU13[:2]])
def test_a_machine_without_a_gpu_runs_any_consistent_set(
    packages: tuple[str, ...], machine: Callable[..., Environment]
) -> None:
    assert conflicts(machine(*packages)) == ()


def test_cuda_13_wheels_on_a_cuda_12_driver_are_each_replaced(machine: Callable[..., Environment]) -> None:
    found = conflicts(machine(*CU13, TENSORRT_CU13, gpus=("T4",), cuda=(12, 4)))

    assert {conflict.level for conflict in found} == {"error"}
    assert all("the driver ends at CUDA 12.4" in conflict.what for conflict in found)
    assert [conflict.cure for conflict in found] == [
        "pip install 'torch>=2.8,<2.11' 'torchvision>=0.23,<0.26'",
        "pip install 'onnxruntime-gpu>=1.24,<1.27'",
        "pip uninstall -y cupy-cuda13x && pip install 'cupy-cuda12x>=13.6,<15'",
        (
            "pip uninstall -y tensorrt-cu13 tensorrt-cu13-bindings tensorrt-cu13-libs"
            " && pip install 'tensorrt-cu12>=10.13,<11'"
        ),
    ]


@pytest.mark.parametrize(("cuda", "level"), [((13, 0), "error"), (None, "warning")])
def test_cupy_of_another_cuda_than_torch_breaks_only_where_a_driver_is(
    cuda: tuple[int, int] | None, level: str, machine: Callable[..., Environment]
) -> None:
    (found,) = conflicts(machine(*CU13[:2], "cupy/cupy-cuda12x==14.2.0", gpus=("H100",) if cuda else (), cuda=cuda))

    assert found.level == level
    assert found.what == "cupy-cuda12x 14.2.0 is built for CUDA 12, but torch 2.15.0 is built for CUDA 13"
    assert found.cure == "pip uninstall -y cupy-cuda12x && pip install 'cupy-cuda13x>=14,<15'"


@pytest.mark.parametrize(
    ("torch", "runtime", "cure"),
    [
        (CU13[0], "1.26.0", "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.28'"),
        (CU12[0], "1.31.1", "pip install 'onnxruntime-gpu>=1.24,<1.27'"),
    ],
)
def test_onnxruntime_of_another_cuda_than_torch_is_replaced(
    torch: str, runtime: str, cure: str, machine: Callable[..., Environment]
) -> None:
    (found,) = conflicts(machine(torch, f"onnxruntime/onnxruntime-gpu=={runtime}"))

    assert found.cure == cure


def test_without_torch_the_runtimes_are_held_to_each_other(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine("onnxruntime/onnxruntime-gpu==1.31.1", "cupy/cupy-cuda12x==14.2.0"))

    assert "onnxruntime-gpu 1.31.1 is built for CUDA 13" in found.what


def test_a_cuda_11_package_is_brought_to_the_newest_cuda(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine("cupy/cupy-cuda11x==13.6.0"))

    assert found.cure == "pip uninstall -y cupy-cuda11x && pip install 'cupy-cuda13x>=14,<15'"


def test_volta_under_a_cuda_13_driver_is_brought_back_to_cuda_12(machine: Callable[..., Environment]) -> None:
    found = conflicts(machine(*CU13, gpus=("V100",), cuda=(13, 0)))

    assert len(found) == 3
    assert all("V100 (SM 7.0) needs CUDA 12" in conflict.what for conflict in found)
    assert found[0].cure == "pip install 'torch>=2.8,<2.11' 'torchvision>=0.23,<0.26'"


def test_a_driver_older_than_cuda_12_is_the_only_complaint(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine(*CU12, gpus=("T4",), cuda=(11, 4)))

    assert found.level == "error"
    assert "driver 1.0 is older than CUDA 12" in found.what
    assert "525" in found.cure


def test_what_nvml_complains_about_is_passed_on() -> None:
    host = Host(os="Linux", kernel="6", python="3.11", cpu=Cpu(model="", architecture="x86_64", logical_cores=1))

    (found,) = conflicts(Environment(host=host, driver=Driver(problem="Driver/library version mismatch")))

    assert "Driver/library version mismatch" in found.what
    assert "reboot" in found.cure


def test_a_driver_without_nvidia_ml_py_is_an_error() -> None:
    host = Host(os="Linux", kernel="6", python="3.11", cpu=Cpu(model="", architecture="x86_64", logical_cores=1))

    (found,) = conflicts(Environment(host=host, driver=Driver(version="580.65.06", cuda=(13, 0))))

    assert found.cure == "pip install nvidia-ml-py"


def test_a_gpu_that_torch_holds_no_code_for_is_named(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine(*CU12, gpus=("GTX 1080",), cuda=(12, 8)))

    assert found.what == "torch 2.10.0 (CUDA 12.8) holds no code for SM 6.1 of GTX 1080"


def test_torch_of_an_unknown_cuda_is_not_judged_by_the_table(machine: Callable[..., Environment]) -> None:
    assert conflicts(machine("torch==2.7.1+cu126", *CU12[1:], gpus=("GTX 1080",), cuda=(12, 8))) == ()


def test_a_cpu_build_of_torch_on_a_gpu_machine_is_replaced(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine("torch==2.15.0", *CU13[1:], gpus=("H100",), cuda=(13, 0)))

    assert found.level == "error"
    assert found.cure == "pip install --force-reinstall 'torch>=2.11' 'torchvision>=0.26'"


def test_both_packages_of_onnxruntime_overwrite_each_other(machine: Callable[..., Environment]) -> None:
    found = conflicts(machine(CU13[0], "onnxruntime/onnxruntime==1.31.1", "onnxruntime/onnxruntime-gpu==1.31.1"))

    (clash,) = found
    assert clash.level == "error"
    assert clash.what == "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 overwrite each other's files"
    assert clash.cure == (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]>=1.28'"
    )


def test_two_builds_of_tensorrt_overwrite_each_other_but_the_meta_package_does_not(
    machine: Callable[..., Environment],
) -> None:
    gpu: dict[str, Any] = {"gpus": ("H100",), "cuda": (13, 0)}
    meta = machine(*CU13, "tensorrt/tensorrt==10.16.1.11", TENSORRT_CU13, **gpu)
    (found,) = conflicts(machine(*CU13, TENSORRT_CU12, TENSORRT_CU13, **gpu))

    assert conflicts(meta) == ()
    assert found.cure.endswith("tensorrt-cu13-libs && pip install 'tensorrt-cu13>=10.13.2,<11'")
    assert "tensorrt-cu12-bindings" in found.cure


def test_the_cpu_package_of_onnxruntime_on_a_gpu_machine_is_replaced(machine: Callable[..., Environment]) -> None:
    packages = (CU13[0], "onnxruntime/onnxruntime==1.31.1", *CU13[2:])

    (found,) = conflicts(machine(*packages, gpus=("H100",), cuda=(13, 0)))

    assert found.level == "warning"
    assert found.cure == "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]>=1.28'"
    assert conflicts(machine(*packages)) == ()


def test_on_arm_no_package_of_onnxruntime_with_cuda_is_promised(machine: Callable[..., Environment]) -> None:
    on_x86 = machine(CU13[0], "onnxruntime/onnxruntime==1.31.1", *CU13[2:], gpus=("H100",), cuda=(13, 0))
    cpu = replace(on_x86.host.cpu, architecture="aarch64")

    (found,) = conflicts(replace(on_x86, host=replace(on_x86.host, cpu=cpu)))

    assert found.cure == "use the backend tensorrt: ONNX Runtime has no package with CUDA for Linux on ARM"


def test_onnxruntime_1_27_is_to_be_avoided(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine(CU13[0], "onnxruntime/onnxruntime-gpu==1.27.0"))

    assert found.level == "warning"
    assert found.cure == "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.28'"


def test_tensorrt_11_loses_the_calibrator_and_the_provider_of_onnxruntime(machine: Callable[..., Environment]) -> None:
    found = conflicts(machine(*CU13, "tensorrt/tensorrt-cu13==11.4.0.106", gpus=("H100",), cuda=(13, 0)))

    assert [conflict.level for conflict in found] == ["warning", "warning"]
    assert "no implicit calibrator" in found[0].what
    assert "libnvinfer.so.10" in found[1].what
    assert {conflict.cure for conflict in found} == {"pip install 'tensorrt-cu13>=10.13.2,<11'"}


def test_tensorrt_11_loses_no_provider_where_onnxruntime_has_none(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine("onnxruntime==1.31.1", "tensorrt/tensorrt-cu13==11.4.0.106"))

    assert "no implicit calibrator" in found.what


def test_tensorrt_8_is_refused(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine(*CU12, "tensorrt==8.6.1", gpus=("T4",), cuda=(12, 4)))

    assert found.what == "tensorrt 8.6.1 is neither 10.x nor 11.x"
    assert found.cure == "pip install 'trtbench[cu12]'"


def test_tensorrt_on_a_gpu_it_dropped_points_to_other_backends(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine(*CU12, TENSORRT_CU12, gpus=("V100",), cuda=(12, 8)))

    assert found.what == "tensorrt-cu12 10.16.1.11 needs SM 7.5, V100 is SM 7.0"
    assert "onnxruntime-cuda" in found.cure


@pytest.mark.parametrize(
    ("numpy", "cupy", "cure"),
    [
        ("1.26.4", "14.2.0", "pip install 'numpy>=2.0,<2.6'"),
        ("2.6.0", "14.2.0", "pip install 'numpy>=2.0,<2.6'"),
        ("2.5.2", "14.2.0", None),
        ("1.26.4", "13.6.0", None),
        ("2.6.1", "13.6.0", "pip install 'numpy>=1.22,<2.6'"),
        ("2.9.0", "15.0.0", None),
    ],
)
def test_numpy_must_be_one_that_cupy_takes(
    numpy: str, cupy: str, cure: str | None, machine: Callable[..., Environment]
) -> None:
    found = conflicts(machine(CU12[0], f"cupy/cupy-cuda12x=={cupy}", f"numpy=={numpy}"))

    assert [conflict.cure for conflict in found] == ([cure] if cure else [])


def test_a_gpu_that_neither_cupy_nor_pycuda_opens_is_a_warning(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine(*CU12[:2], gpus=("T4",), cuda=(12, 4)))

    assert not conflicts(machine(*CU12[:2], "pycuda==2026.1", gpus=("T4",), cuda=(12, 4)))
    assert found.level == "warning"
    assert "neither CuPy nor PyCUDA" in found.what
    assert found.cure == "pip install 'cupy-cuda12x>=13.6,<15'"


def test_the_wrong_pynvml_is_removed(machine: Callable[..., Environment]) -> None:
    (found,) = conflicts(machine("pynvml==11.5.3"))

    assert found.level == "warning"
    assert found.cure == "pip uninstall -y pynvml && pip install --force-reinstall nvidia-ml-py"


def test_errors_stand_before_warnings(machine: Callable[..., Environment]) -> None:
    found = conflicts(machine("pynvml==11.5.3", CU13[0], gpus=("T4",), cuda=(12, 4)))

    assert [conflict.level for conflict in found] == ["error", "warning", "warning"]


@pytest.mark.parametrize("cuda", [12, 13])
def test_the_cures_ask_for_what_the_extras_ask_for(cuda: int) -> None:
    extras = tomllib.loads((_PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = (r.partition(";")[0].strip() for r in (*extras[f"cu{cuda}-base"], *extras[f"cu{cuda}"]))
    wanted = {r for r in asked if not r.startswith("trtbench")}

    cures = {r for (_, of), requirements in REQUIREMENTS_OF_EXTRAS.items() if of == cuda for r in requirements}

    assert cures == wanted


def test_every_pip_command_of_a_cure_is_one_a_shell_takes(machine: Callable[..., Environment]) -> None:
    everything = machine(*CU13, TENSORRT_CU12, TENSORRT_CU13, "pynvml==11.5.3", gpus=("T4",), cuda=(12, 4))

    for conflict in conflicts(everything):
        assert re.fullmatch(r"(pip (un)?install( -\S+| '[^']+'| [\w-]+)+( && )?)+", conflict.cure)

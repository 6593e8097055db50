from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from trtbench.environment import Package
from trtbench.environment.overview import collect_packages, cuda_of

if TYPE_CHECKING:
    from pathlib import Path

_TORCH = """\
from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.15.0+cu132'
debug = False
cuda: Optional[str] = '13.2'
hip: Optional[str] = None
"""
_TORCH_CPU = _TORCH.replace("'13.2'", "None")
_ONNXRUNTIME = "package_name = 'onnxruntime-gpu'\n__version__ = '1.31.1'\ncuda_version = '13.0'\n"


@pytest.mark.parametrize(
    ("module", "distribution", "version", "build_file", "cuda"),
    [
        ("torch", "torch", "2.15.0", _TORCH, "13.2"),
        ("torch", "torch", "2.15.0", _TORCH_CPU, None),
        ("torch", "torch", "2.6.0", "cuda = '12.4'\n", "12.4"),
        ("torch", "torch", "2.6.0", "", None),
        ("onnxruntime", "onnxruntime-gpu", "1.31.1", _ONNXRUNTIME, "13.0"),
        ("onnxruntime", "onnxruntime-gpu", "1.27.0", "", "13"),
        ("onnxruntime", "onnxruntime-gpu", "1.26.0", "", "12"),
        ("onnxruntime", "onnxruntime", "1.31.1", "", None),
        ("cupy", "cupy-cuda12x", "14.2.0", "", "12"),
        ("cupy", "cupy-cuda13x", "14.2.0", "", "13"),
        ("cupy", "cupy", "14.2.0", "", None),
        ("tensorrt", "tensorrt-cu12", "10.16.1.11", "", "12"),
        ("tensorrt", "tensorrt", "10.16.1.11", "", None),
        ("pycuda", "pycuda", "2026.1", "", None),
    ],
)
def test_the_cuda_of_a_build_is_read_from_file_name_or_version(
    module: str, distribution: str, version: str, build_file: str, cuda: str | None
) -> None:
    package = Package(module=module, distribution=distribution, version=version)

    assert cuda_of(package, build_file=build_file) == cuda


@pytest.mark.parametrize(
    ("version", "release"),
    [("10.16.1.11", (10, 16, 1, 11)), ("2.15.0+cu132", (2, 15, 0)), ("1.27.0rc1", (1, 27, 0)), ("unknown", (0,))],
)
def test_the_release_is_the_numbers_of_the_version(version: str, release: tuple[int, ...]) -> None:
    assert Package(module="m", distribution="d", version=version).release == release


def test_both_providers_of_a_module_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "tensorrt_cu12", "10.16.1.11")
    _install(tmp_path, "onnxruntime_gpu", "1.26.0", name="onnxruntime-gpu")
    _install(tmp_path, "onnxruntime", "1.31.1")
    monkeypatch.syspath_prepend(str(tmp_path))

    found = collect_packages(
        {"onnxruntime": ["onnxruntime-gpu", "onnxruntime", "onnxruntime-gpu"], "tensorrt": ["tensorrt_cu12"]}
    )

    assert [str(package) for package in found] == [
        "onnxruntime 1.31.1",
        "onnxruntime-gpu 1.26.0",
        "tensorrt-cu12 10.16.1.11",
    ]
    assert [package.cuda for package in found] == [None, "12", "12"]


def test_the_build_file_of_the_installed_torch_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "torch", "2.15.0")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/version.py").write_text(_TORCH)
    monkeypatch.syspath_prepend(str(tmp_path))

    (torch,) = collect_packages({"torch": ["torch"]})

    assert (torch.version, torch.cuda, torch.cuda_major) == ("2.15.0", "13.2", 13)


def test_torch_pruning_is_read_from_metadata_because_its_own_version_lies() -> None:
    found = {package.module: package for package in collect_packages()}

    assert found["torch_pruning"].version == metadata.version("torch-pruning")
    assert found["trtbench"].version == metadata.version("trtbench")


def _install(folder: Path, project: str, version: str, *, name: str | None = None) -> None:
    info = folder / f"{project}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name or project}\nVersion: {version}\n")

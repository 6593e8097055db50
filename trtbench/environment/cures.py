"""Which CUDA major a machine should have, and the pip command that brings a package to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trtbench.environment.gpus import FIRST_SM_OF_CUDA_13

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbench.environment.facts import Environment, Package

# (module, CUDA major) -> what the extras cu12 and cu13 of pyproject.toml ask for
REQUIREMENTS_OF_EXTRAS: dict[tuple[str, int], tuple[str, ...]] = {
    ("torch", 12): ("torch>=2.8,<2.11", "torchvision>=0.23,<0.26"),
    ("torch", 13): ("torch>=2.11", "torchvision>=0.26"),
    ("onnxruntime", 12): ("onnxruntime-gpu>=1.24,<1.27",),
    ("onnxruntime", 13): ("onnxruntime-gpu[cuda,cudnn]>=1.28",),
    ("cupy", 12): ("cupy-cuda12x>=13.6,<15",),
    ("cupy", 13): ("cupy-cuda13x>=14,<15",),
    ("tensorrt", 12): ("tensorrt-cu12>=10.13,<11",),
    ("tensorrt", 13): ("tensorrt-cu13>=10.13.2,<11",),
}
_NEWEST_CUDA = 13


def wanted_cuda(environment: Environment) -> tuple[int, str]:
    """Return the CUDA major that all packages of a machine should share, and who asks for it."""
    return next(_wishes(environment))


def _wishes(environment: Environment) -> Iterator[tuple[int, str]]:
    """Yield the hardest limit first: a driver and a GPU cannot be installed again, a package can."""
    cuda = environment.driver.cuda
    if cuda and cuda < (13, 0):
        yield 12, f"the driver ends at CUDA {cuda[0]}.{cuda[1]}"
    for gpu in environment.usable_gpus:
        if gpu.compute_capability < FIRST_SM_OF_CUDA_13:
            yield 12, f"{gpu.name} (SM {gpu.sm}) needs CUDA 12"
    for module in ("torch", "onnxruntime", "cupy"):
        for package in environment.providers(module):
            if package.cuda_major in {12, 13}:
                yield package.cuda_major, f"{package} is built for CUDA {package.cuda_major}"
    yield _NEWEST_CUDA, f"CUDA {_NEWEST_CUDA} is the newest that trtbench knows"


def install(module: str, *, cuda: int) -> str:
    """Return the command that installs what provides `module` for a CUDA major."""
    return " ".join(["pip install", *(f"'{requirement}'" for requirement in REQUIREMENTS_OF_EXTRAS[module, cuda])])


def replace(*packages: Package, cuda: int) -> str:
    """Return the command that puts the build for a CUDA major in the place of all that provides one module.

    Distributions of another name are removed first: they share their folder with what comes.
    """
    module = packages[0].module
    comes = re.split(r"[\[<>=]", REQUIREMENTS_OF_EXTRAS[module, cuda][0])[0]
    if [package.distribution for package in packages] == [comes]:
        return install(module, cuda=cuda)
    goes = " ".join(part for package in packages for part in _parts(package))
    return f"pip uninstall -y {goes} && {install(module, cuda=cuda)}"


def _parts(package: Package) -> list[str]:
    """Name a distribution and those it is made of: TensorRT comes in three."""
    parts = ("", "-bindings", "-libs") if package.module == "tensorrt" else ("",)
    return [package.distribution + part for part in parts]

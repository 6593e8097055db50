"""The packages whose versions a number depends on, read from their metadata: importing torch alone takes 3 s."""

from __future__ import annotations

import functools
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from trtbench.environment.facts import Package

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# torch-pruning's __version__ lies (1.6.0 in 1.6.1), so versions come from metadata only.
_MODULES = (
    "trtbench",
    "torch",
    "torchvision",
    "torch_pruning",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx_bindings",
    "cupy",
    "pycuda",
    "pynvml",
    "numpy",
)
# where a build writes down its CUDA: module -> (file, what stands before the version)
_BUILD_FILES = {
    "torch": ("torch/version.py", r"^cuda\b.*=\s*'([\d.]+)'"),
    "onnxruntime": ("onnxruntime/capi/build_and_package_info.py", r"^cuda_version\s*=\s*'([\d.]+)'"),
}
_FIRST_ONNXRUNTIME_OF_CUDA_13 = (1, 27)


def collect_packages(providers: Mapping[str, Iterable[str]] | None = None) -> tuple[Package, ...]:
    """List the distributions of interest; nothing is imported.

    Args:
        providers: module -> distributions that provide it; by default those that are installed.
    """
    found = _providers(tuple(sys.path)) if providers is None else providers
    return tuple(_package(module, name) for module in _MODULES for name in sorted(set(found.get(module, ()))))


def cuda_of(package: Package, *, build_file: str = "") -> str | None:
    """Return the CUDA a package was built for: from its build file's text, its name, or its version."""
    named = re.search(r"(?:cuda|cu)(\d\d)x?\b", package.distribution)
    written = re.search(_BUILD_FILES[package.module][1], build_file, re.MULTILINE) if build_file else None
    if written:
        return written.group(1)
    if named:
        return named.group(1)
    if package.distribution == "onnxruntime-gpu":
        return "13" if package.release >= _FIRST_ONNXRUNTIME_OF_CUDA_13 else "12"
    return None


@functools.lru_cache(maxsize=1)
def _providers(_path: tuple[str, ...]) -> Mapping[str, Iterable[str]]:
    """Read the listings of all installed packages, which takes half a second, once while the path stays as it is."""
    return metadata.packages_distributions()


def _package(module: str, name: str) -> Package:
    distribution = metadata.distribution(name)
    bare = Package(module=module, distribution=_normalised(name), version=distribution.version)
    return Package(
        module=module,
        distribution=bare.distribution,
        version=bare.version,
        cuda=cuda_of(bare, build_file=_build_file(distribution, module)),
    )


def _build_file(distribution: metadata.Distribution, module: str) -> str:
    if module not in _BUILD_FILES:
        return ""
    path = Path(str(distribution.locate_file(_BUILD_FILES[module][0])))
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _normalised(name: str) -> str:
    """Spell a distribution's name in one way (PEP 503): tensorrt_cu12 is tensorrt-cu12."""
    return re.sub(r"[-_.]+", "-", name).lower()

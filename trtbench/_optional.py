"""The one door to packages that may be absent; "installed" and "has a device" are two questions."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from importlib import metadata, util
from typing import TYPE_CHECKING

from trtbench.errors import CapabilityError

if TYPE_CHECKING:
    from types import ModuleType

# package -> the command that brings it
_CURES = {
    "tensorrt": "install the extra that fits the driver: pip install 'trtbench[cu12]' or 'trtbench[cu13]'",
    "tensorrt_rtx_bindings": "pip install 'trtbench[rtx]' (Linux on x86-64)",
    "cupy": "install the extra that fits the driver: pip install 'trtbench[cu12-base]' or 'trtbench[cu13-base]'",
    "pycuda": "pip install 'trtbench[pycuda]' (it builds with nvcc and the CUDA headers)",
    "constriction": "pip install 'trtbench[codec]' (not on Linux on ARM)",
    "timm": "pip install 'trtbench[timm]'",
    "mlflow": "pip install 'trtbench[mlflow]'",
    "ray": "pip install 'trtbench[ray]' (Linux)",
    "pynvml": "pip install nvidia-ml-py",
}


def is_installed(package: str) -> bool:
    """Say whether `package` can be found, without importing it."""
    try:
        return util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None; `onnxruntime` is also found as `onnxruntime-gpu`."""
    return _version(distribution, tuple(sys.path))


@functools.cache
def _version(distribution: str, _path: tuple[str, ...]) -> str | None:
    """Read it once while the path stays as it is: a plan asks for versions thousands of times."""
    for name in ("onnxruntime-gpu", distribution) if distribution == "onnxruntime" else (distribution,):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def load(package: str) -> ModuleType:
    """Import an optional package.

    Raises:
        CapabilityError: it is absent or broken; the message carries the loader's words and the cure.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise CapabilityError(
            f"package {package!r}",
            expected="an importable installation",
            got=str(error),
            cure=_CURES.get(package, f"pip install {package}"),
        ) from error

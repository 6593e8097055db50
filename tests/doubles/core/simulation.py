"""Puts the doubles where TensorRT, CuPy and PyCUDA would be imported, here and in the workers this process starts."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_FOLDER = Path(__file__).parents[1]
_OURS = ("trtbench.engines.cuda", "trtbench.engines.tensorrt", "trtbench.engines.tensorrt_rtx")
_RTX = "tensorrt_rtx_bindings"
_REAL = ("tensorrt", _RTX, "cupy", "pycuda", "simulated_cuda", "simulated_tensorrt", *_OURS)
_PREFIXES = tuple(f"{each}." for each in _REAL)
MAJORS = {"10.16": "trt10", "11.4": "trt11", "rtx-1.7": "rtx17"}


@contextmanager
def simulated(version: str) -> Iterator[ModuleType]:
    """Make `import tensorrt` give the double of a version, and take all traces away afterwards.

    Args:
        version: "10.16", "11.4" or "rtx-1.7".

    Yields:
        The module `tensorrt`, or TensorRT for RTX's.
    """
    folders = [str(_FOLDER / each) for each in (MAJORS[version], "cuda", "core")]
    path, pythonpath = list(sys.path), os.environ.get("PYTHONPATH")
    before = _taken_out()
    sys.path[:0] = folders
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *([pythonpath] if pythonpath else [])])
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(_RTX if version.startswith("rtx") else "tensorrt")
    finally:
        _taken_out()
        _put_back(before)
        sys.path[:] = path
        if pythonpath is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = pythonpath


def _taken_out() -> dict[str, ModuleType]:
    """Drop the modules that depend on which TensorRT there is, also from the packages that hold them."""
    found = {each: sys.modules[each] for each in sys.modules if each in _REAL or each.startswith(_PREFIXES)}
    for name, module in found.items():
        del sys.modules[name]
        parent, _, own = name.rpartition(".")
        if parent and getattr(sys.modules.get(parent), own, None) is module:
            delattr(sys.modules[parent], own)
    return found


def _put_back(modules: dict[str, ModuleType]) -> None:
    """Restore what was imported before, so that tests that hold such modules see them unchanged."""
    sys.modules.update(modules)
    for name, module in modules.items():
        parent, _, own = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], own, module)

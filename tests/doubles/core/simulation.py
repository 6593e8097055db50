"""Puts the doubles where TensorRT, CuPy and PyCUDA would be imported, here and in the workers this process starts."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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
    path, entries, pythonpath = sys.path, list(sys.path), os.environ.get("PYTHONPATH")
    before = _taken_out()
    sys.path[:0] = folders
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *([pythonpath] if pythonpath else [])])
    sys.meta_path.insert(0, _kept[version])
    try:
        yield import_module(_RTX if version.startswith("rtx") else "tensorrt")
    finally:
        sys.meta_path.remove(_kept[version])
        _taken_out()
        _kept[version].make_new()
        _put_back(before)
        path[:] = entries  # of the list of before: a test may have another in its place for a while
        sys.path = path
        if pythonpath is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = pythonpath


@dataclass(slots=True, kw_only=True)
class _AsNew:
    """A module as it was when its first import had ended: its names, and what its own containers held."""

    module: ModuleType
    brought: tuple[str, ...]
    names: dict[str, Any] = field(default_factory=dict)
    held: dict[str, Any] = field(default_factory=dict)

    def take(self) -> None:
        """Note the state of now."""
        self.names = dict(vars(self.module))
        own = {name: each for name, each in self.names.items() if name != "__builtins__"}
        self.held = {name: each.copy() for name, each in own.items() if type(each) in {dict, list, set}}

    def restore(self) -> None:
        """Forget what came later; names that came later are left to whoever put them there."""
        vars(self.module).update(self.names)
        for name, before in self.held.items():
            container = self.names[name]
            container.clear()
            container.extend(before) if isinstance(container, list) else container.update(before)
        for each in self.names.values():
            if isinstance(each, threading.local):
                vars(each).clear()
            elif isinstance(each, weakref.WeakSet):
                each.clear()
            elif hasattr(each, "cache_clear"):
                each.cache_clear()


class _Kept(MetaPathFinder, Loader):
    """Runs the modules of one version once in a process: imported again, one is as it was after its first import."""

    def __init__(self) -> None:
        self._modules: dict[str, _AsNew] = {}
        self._loaders: dict[str, Loader] = {}
        self._fresh: dict[str, _AsNew] = {}
        self._depth = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of the doubles, or of ours that depend on which TensorRT there is, where it would be found."""
        if fullname not in _REAL and not fullname.startswith(_PREFIXES):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self._loaders[fullname], spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Give the module again."""
        return self._modules[spec.name].module if spec.name in self._modules else None

    def exec_module(self, module: ModuleType) -> None:
        """Run a module, or put beside it what came with it when it ran."""
        name = module.__name__
        if name in self._modules:
            _put_back({each: self._modules[each].module for each in self._modules[name].brought})
            return
        before = {*sys.modules}
        self._depth += 1
        try:
            self._loaders[name].exec_module(module)
        finally:
            self._depth -= 1
        brought = tuple(each for each in {*sys.modules} - before if each.startswith(_PREFIXES) or each in _REAL)
        self._fresh[name] = _AsNew(module=module, brought=brought)
        if not self._depth:
            for each in self._fresh.values():
                each.take()
            self._modules |= self._fresh
            self._fresh.clear()

    def make_new(self) -> None:
        """Take from the modules what tests left in them."""
        for each in self._modules.values():
            each.restore()
        if "simulated_cuda.streams" in self._modules:
            self._modules["simulated_cuda.streams"].module.forget_all()


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


_kept = {version: _Kept() for version in MAJORS}

"""Packages that may be absent are asked for at one door, which tells how to bring them."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from trtbench._optional import cupy_with_device, is_installed, load, version
from trtbench.errors import CapabilityError


def test_a_package_that_is_there_is_found_without_being_imported() -> None:
    assert is_installed("onnxscript")
    assert not is_installed("no_such_package")
    assert not is_installed("no_such_package.inside")
    assert version("numpy") is not None
    assert version("no-such-distribution") is None


def test_a_missing_package_is_told_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # an import of it fails

    assert load("json").__name__ == "json"
    with pytest.raises(CapabilityError, match=r"pip install 'trtbench\[timm\]'"):
        load("timm")
    with pytest.raises(CapabilityError, match="pip install no_such_package"):
        load("no_such_package")


class _Cuda:
    """CuPy's `cuda` module where a device is, or is not, seen."""

    def __init__(self, *, sees_a_device: bool) -> None:
        self._sees_a_device = sees_a_device

    def is_available(self) -> bool:
        return self._sees_a_device


@pytest.mark.parametrize("sees_a_device", [True, False])
def test_cupy_counts_only_where_it_sees_a_device(monkeypatch: pytest.MonkeyPatch, *, sees_a_device: bool) -> None:
    cupy = ModuleType("cupy")
    cupy.cuda = _Cuda(sees_a_device=sees_a_device)  # type: ignore[attr-defined]  # a module of our own
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    cupy.__spec__ = __import__("json").__spec__

    assert (cupy_with_device() is cupy) == sees_a_device


def test_cupy_that_is_absent_or_broken_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import trtbench._optional as door

    monkeypatch.setattr(door, "is_installed", lambda _: False)
    assert cupy_with_device() is None
    monkeypatch.setattr(door, "is_installed", lambda _: True)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert cupy_with_device() is None

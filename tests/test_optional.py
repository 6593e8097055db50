"""Packages that may be absent are asked for at one door, which tells how to bring them."""

from __future__ import annotations

import sys

import pytest

from trtbench._optional import is_installed, load, version
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

"""The device, by each package that drives it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from trtbench._optional import is_installed
from trtbench.engines.cuda import open_cuda

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbench.engines.cuda.device import Cuda


def _without(package: str, variable: str) -> None:
    """Skip for want of a package, or fail where the environment demands what it does."""
    words = f"needs {package}: `trtbench gpu-info` names the extra that brings it"
    if os.environ.get(variable) == "1":
        pytest.fail(words, pytrace=False)
    pytest.skip(words)


@pytest.fixture
def cuda() -> Iterator[Cuda]:
    """The first device by CuPy."""
    if not is_installed("cupy"):
        _without("cupy", "TRTBENCH_REQUIRE_GPU")
    device = open_cuda()
    assert device.package.startswith("cupy")
    yield device
    device.close()


@pytest.fixture(params=["cupy", "pycuda"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """The first device by CuPy, and by PyCUDA where it is installed: no wheel brings it."""
    if not is_installed(request.param):
        if request.param == "pycuda":
            pytest.skip("needs pycuda, which must be built: pip install 'trtbench[pycuda]'")
        _without("cupy", "TRTBENCH_REQUIRE_GPU")
    if request.param == "pycuda":
        monkeypatch.setitem(sys.modules, "cupy", None)
    device = open_cuda()
    assert device.package.startswith(request.param)
    yield device
    device.close()

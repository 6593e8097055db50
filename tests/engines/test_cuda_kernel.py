"""The calibrator's kernel equals its NumPy twin, the twin equals `normalise`, and NVRTC compiles every kernel."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtbench.data.preprocess import level_table, normalise
from trtbench.engines.tensorrt.calibrator import (
    NORMALISE_BATCH,
    SOURCES,
    launch_normalise_batch,
    normalise_batch,
)
from trtbench.records import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_CORE = Path(__file__).parents[1] / "doubles" / "core"

_positive = st.floats(0.01, 4.0)
_means = st.floats(-1.0, 2.0)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.int64], Preprocessing]:
    channels = draw(st.integers(1, 4))
    size, images, batch = (draw(st.integers(1, most)) for most in (9, 5, 7))
    preprocessing = Preprocessing(
        mean=tuple(draw(_means) for _ in range(channels)),
        std=tuple(draw(_positive) for _ in range(channels)),
        size=size,
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = random.integers(0, 256, (images, channels, size, size), dtype=np.uint8)
    return pixels, random.integers(0, images, batch), preprocessing


@given(_cases())
def test_the_twin_is_normalise_bit_for_bit(case: tuple[NDArray[np.uint8], NDArray[np.int64], Preprocessing]) -> None:
    pixels, chosen, preprocessing = case

    found = normalise_batch(pixels, chosen=chosen, table=level_table(preprocessing))

    assert found.flags.c_contiguous
    assert found.dtype == np.float32
    assert found.tobytes() == normalise(pixels[chosen], preprocessing).tobytes()


class _Host:
    """Host memory that a kernel compiled for the host reads as a device's."""

    def __init__(self, array: NDArray[np.generic]) -> None:
        self.array = array
        self.ptr = int(array.ctypes.data)
        self.nbytes = array.nbytes

    def free(self) -> None:
        """NumPy frees it."""


class _CompiledForTheHost:
    """The kernel's own text, compiled by g++ and run thread by thread; a few blocks, so that the stride is used."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(_CORE))
        from simulated_cuda import kernels

        if not kernels.has_compiler():
            pytest.skip("needs g++")
        self._kernel = kernels.compiled(SOURCES[NORMALISE_BATCH], NORMALISE_BATCH)
        self.blocks = 0

    def __call__(self, blocks: int, threads: int, arguments: tuple[_Host | int, ...]) -> None:
        self.blocks = blocks
        packed = [np.uint64(one.ptr) if isinstance(one, _Host) else np.int64(one) for one in arguments]
        self._kernel.run((min(blocks, 2),), (threads,), [one.tobytes() for one in packed])


def _launched(
    kernel: _CompiledForTheHost, pixels: NDArray[np.uint8], chosen: NDArray[np.int64], preprocessing: Preprocessing
) -> NDArray[np.float32]:
    shape = (len(chosen), *preprocessing.input_shape)
    output = np.full(shape, np.nan, np.float32)
    launch_normalise_batch(
        kernel,  # type: ignore[arg-type]  # of the double: the arguments are host memory
        _Host(pixels),
        chosen=_Host(chosen),
        table=_Host(level_table(preprocessing)),
        output=_Host(output),
        shape=shape,
    )
    return output


@pytest.fixture(scope="module")
def compiled() -> _CompiledForTheHost:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return _CompiledForTheHost(monkeypatch)


@given(case=_cases())
def test_the_kernels_text_run_on_the_host_is_its_twin_bit_for_bit(
    compiled: _CompiledForTheHost, case: tuple[NDArray[np.uint8], NDArray[np.int64], Preprocessing]
) -> None:
    pixels, chosen, preprocessing = case

    found = _launched(compiled, pixels, chosen, preprocessing)

    twin = normalise_batch(pixels, chosen=chosen, table=level_table(preprocessing))
    assert found.tobytes() == twin.tobytes()


def test_more_values_than_threads_are_all_written(compiled: _CompiledForTheHost) -> None:
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, size=64)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 3, 64, 64), dtype=np.uint8)
    chosen = np.arange(90, dtype=np.int64)

    found = _launched(compiled, pixels, chosen, preprocessing)

    assert compiled.blocks == 4096
    assert found.size > 4096 * 256
    np.testing.assert_array_equal(found, normalise(pixels, preprocessing))


@pytest.fixture(scope="module")
def nvrtc() -> Any:
    """The compiler of CUDA's text; it needs no GPU."""
    try:
        module = importlib.import_module("cuda.bindings.nvrtc")
        module.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs cuda-bindings and nvidia-cuda-nvrtc, which PyTorch brings, to compile CUDA: {error}")
    return module


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_nvrtc_compiles_every_kernel(nvrtc: Any, name: str, architecture: str) -> None:
    _, program = nvrtc.nvrtcCreateProgram(SOURCES[name].encode(), b"kernel.cu", 0, [], [])

    (answer,) = nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture={architecture}".encode()])

    assert answer == nvrtc.nvrtcResult.NVRTC_SUCCESS, _text(
        program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog
    )
    assert f".entry {name}(" in _text(program, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)


def _text(program: Any, size: Callable[[Any], tuple[Any, int]], fill: Callable[[Any, bytes], Any]) -> str:
    text = bytes(size(program)[1])
    fill(program, text)
    return text.decode()

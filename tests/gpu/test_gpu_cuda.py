"""What needs CUDA alone: kernel, calibrator data, copies, graphs and clocks on a real device."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from trtbench.data.preprocess import level_table, normalise
from trtbench.engines.base import CalibrationImages
from trtbench.engines.cuda.loops import timed_by_clock, timed_by_events, timed_in_parts
from trtbench.engines.tensorrt.calibrator import (
    NORMALISE_BATCH,
    SOURCES,
    Feed,
    launch_normalise_batch,
    normalise_batch,
)
from trtbench.errors import DeviceError, OutOfMemoryError
from trtbench.records import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.engines.cuda.device import Cuda, DeviceBuffer, Operation

pytestmark = pytest.mark.gpu
_MOST_BLOCKS = 1000  # of 4 MiB
_FIT = Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616), size=32)
# Spins for a number of the multiprocessor's clock ticks; at 1 to 2 GHz a million are half a millisecond to one.
_SPIN = """
extern "C" __global__ void spin(long long* out, const long long ticks) {
    const long long start = clock64();
    while (clock64() - start < ticks) {}
    out[0] = ticks;
}
"""
_MILLION = 1_000_000


def _uploaded(cuda: Cuda, array: NDArray[Any]) -> DeviceBuffer:
    buffer = cuda.allocate(array.nbytes)
    cuda.upload(buffer, array)()
    cuda.synchronize()
    return buffer


def _downloaded(cuda: Cuda, address: int, shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    host = cuda.pinned(shape, dtype=dtype)
    cuda.download(host, SimpleNamespace(ptr=address, nbytes=host.nbytes))()
    cuda.synchronize()
    return host.copy()


def _spin(cuda: Cuda, *, millions: int) -> Operation:
    kernel = cuda.kernel(_SPIN, name="spin")
    assert kernel is not None
    out = cuda.allocate(8)
    return lambda: kernel(1, 1, (out, millions * _MILLION))


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (5, 3, 32, 32), (256, 3, 32, 32), (40, 3, 224, 224), (7, 1, 28, 28)])
def test_the_kernel_is_its_twin_bit_for_bit(cuda: Cuda, shape: tuple[int, int, int, int]) -> None:
    random = np.random.default_rng(shape[0])
    batch, channels, size, _ = shape
    fit = Preprocessing(mean=tuple(random.random(channels)), std=tuple(random.random(channels) + 0.1), size=size)
    pixels = random.integers(0, 256, (batch + 3, channels, size, size), dtype=np.uint8)
    chosen = random.permutation(batch + 3)[:batch].astype(np.int64)
    with cuda.current():
        kernel = cuda.kernel(SOURCES[NORMALISE_BATCH], name=NORMALISE_BATCH)
        assert kernel is not None
        output = cuda.allocate(4 * int(np.prod(shape)))
        # Held until the kernel has run.
        on_device, which, table = (_uploaded(cuda, one) for one in (pixels, chosen, level_table(fit)))
        launch_normalise_batch(kernel, on_device, chosen=which, table=table, output=output, shape=shape)
        found = _downloaded(cuda, output.ptr, shape)

    assert found.tobytes() == normalise_batch(pixels, chosen=chosen, table=level_table(fit)).tobytes()
    assert found.tobytes() == normalise(pixels[chosen], fit).tobytes()


def test_calibration_batches_are_whole_when_handed_out_and_stay_so(either: Cuda, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    images = CalibrationImages(
        images=tmp_path / "images.npy",
        preprocessing=_FIT,
        batch_size=32,
        algorithm="entropy",
        cache=tmp_path / "c.cache",
    )
    feed = Feed(images, either)
    expected = normalise(pixels, _FIT)
    for start in (0, 32, 64):
        addresses = feed.next(["input"])
        assert addresses is not None
        # What others do with the device meanwhile, on streams of their own, changes nothing of the batch.
        noise = torch.randn(1024, 1024, device="cuda")
        torch.cuda.synchronize()
        with either.current():
            others = [either.allocate(1 << 20) for _ in range(8)]
            found = _downloaded(either, addresses[0], (32, 3, 32, 32))
            for other in others:
                other.free()
        assert found.tobytes() == expected[start : start + 32].tobytes()
        assert torch.isfinite(noise @ noise).all()
    assert feed.next(["input"]) is None
    feed.close()


def test_bytes_go_up_and_down(either: Cuda) -> None:
    values = np.random.default_rng(1).integers(0, 256, 1 << 20, dtype=np.uint8)
    with either.current():
        buffer = _uploaded(either, values)
        assert buffer.ptr % 256 == 0
        assert _downloaded(either, buffer.ptr, values.shape, np.uint8).tobytes() == values.tobytes()
        buffer.free()


def test_the_context_is_the_one_pytorch_uses(either: Cuda) -> None:
    tensor = torch.arange(1000, dtype=torch.float32, device="cuda")
    torch.cuda.synchronize()

    with either.current():
        found = _downloaded(either, tensor.data_ptr(), (1000,))

    np.testing.assert_array_equal(found, np.arange(1000, dtype=np.float32))
    assert float(tensor.sum()) == 499500


def test_the_device_is_described_as_pytorch_does(either: Cuda) -> None:
    found, known = either.device(), torch.cuda.get_device_properties(0)

    assert found.name == known.name
    assert found.compute_capability == (known.major, known.minor)
    assert found.uuid.split("-", 1)[1] == str(known.uuid)
    free, total = either.memory()
    assert 0 < free <= total
    assert abs(total - known.total_memory) < total // 100


def test_memory_that_no_device_has_is_out_of_memory(either: Cuda) -> None:
    with either.current(), pytest.raises(OutOfMemoryError):
        either.allocate(1 << 50)


def test_a_graph_replays_what_was_captured_while_other_threads_work(cuda: Cuda) -> None:
    source = 'extern "C" __global__ void add(long long* out, const long long n) { out[0] += n; }'
    stop = threading.Event()

    def others() -> None:
        held: list[torch.Tensor] = []  # allocations that the global capture mode would refuse
        while not stop.is_set() and len(held) < _MOST_BLOCKS:
            held.append(torch.zeros(1 << 20, device="cuda"))

    with cuda.current():
        kernel = cuda.kernel(source, name="add")
        assert kernel is not None
        out = _uploaded(cuda, np.zeros(1, np.int64))
        kernel(1, 1, (out, 1))  # the plain launch before a capture
        cuda.synchronize()
        thread = threading.Thread(target=others)
        thread.start()
        try:
            replay = cuda.capture(lambda: kernel(1, 1, (out, 10)))
        finally:
            stop.set()
            thread.join()
        for _ in range(5):
            replay()
        assert _downloaded(cuda, out.ptr, (1,), np.int64).tolist() == [51]


def test_a_capture_that_fails_leaves_the_stream_usable(cuda: Cuda) -> None:
    with cuda.current():
        with pytest.raises(DeviceError):
            cuda.capture(cuda.synchronize)

        buffer = _uploaded(cuda, np.arange(4, dtype=np.int64))
        assert _downloaded(cuda, buffer.ptr, (4,), np.int64).tolist() == [0, 1, 2, 3]


def test_longer_work_takes_longer_by_both_clocks(cuda: Cuda) -> None:
    with cuda.current():
        short, long = _spin(cuda, millions=2), _spin(cuda, millions=20)
        for warm in (short, long):
            warm()
        cuda.synchronize()
        for timed in (timed_by_clock, timed_by_events):
            ratio = np.median(timed(cuda, (long,), samples=9)) / np.median(timed(cuda, (short,), samples=9))
            assert 5 < ratio < 20


def test_the_hosts_clock_and_events_agree_on_work_of_milliseconds(cuda: Cuda) -> None:
    with cuda.current():
        work = _spin(cuda, millions=20)
        work()
        cuda.synchronize()
        waited = float(np.median(timed_by_clock(cuda, (work,), samples=15)))
        passed = float(np.median(timed_by_events(cuda, (work,), samples=15)))

    assert passed > 1e6
    # A caller waits for the launch and for the news of the end too; half a millisecond of both is far too much.
    assert -0.05 * passed < waited - passed < 0.05 * passed + 0.5e6


def test_several_launches_in_a_sample_take_their_sum(cuda: Cuda) -> None:
    with cuda.current():
        work = _spin(cuda, millions=2)
        work()
        cuda.synchronize()
        one = float(np.median(timed_by_events(cuda, (work,), samples=9)))
        four = float(np.median(timed_by_events(cuda, (work,) * 4, samples=9)))

    assert 3 < four / one < 5


def test_launching_is_over_long_before_the_work(cuda: Cuda) -> None:
    with cuda.current():
        host, buffer = cuda.pinned((1 << 20,), dtype=np.uint8), cuda.allocate(1 << 20)
        work = _spin(cuda, millions=20)
        work()
        cuda.synchronize()
        parts = timed_in_parts(
            cuda, upload=cuda.upload(buffer, host), launch=work, download=cuda.download(host, buffer), samples=9
        )

    assert np.median(parts.enqueue) < np.median(parts.compute) / 2
    assert np.median(parts.h2d) > 0
    assert np.median(parts.d2h) > 0

"""The calibrator feeds TensorRT 10 the manifest's images, laid out on the device, and a cache of these alone."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trtbench.data.preprocess import normalise
from trtbench.engines.base import CalibrationImages
from trtbench.errors import CalibrationError, OutOfMemoryError, StoreError, UnsupportedError
from trtbench.records import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from trtbench.engines.cuda.device import Cuda

_FIT = Preprocessing(mean=(0.48, 0.44, 0.4), std=(0.2, 0.21, 0.22), size=5)
_PIXELS = np.random.default_rng(3).integers(0, 256, (10, 3, 5, 5), dtype=np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> CalibrationImages:
    np.save(tmp_path / "images.npy", _PIXELS)
    return CalibrationImages(
        images=tmp_path / "images.npy",
        preprocessing=_FIT,
        batch_size=4,
        algorithm="entropy",
        cache=tmp_path / "caches" / "key.cache",
    )


@pytest.fixture
def cuda(tensorrt_10_double: ModuleType) -> Cuda:  # noqa: ARG001  the double stands before CuPy is imported
    from trtbench.engines.cuda import open_cuda

    return open_cuda()


@pytest.fixture(params=["cupy", "pycuda"])
def either(request: pytest.FixtureRequest, tensorrt_10_double: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Cuda:  # noqa: ARG001
    from trtbench.engines.cuda import open_cuda

    if request.param == "pycuda":
        monkeypatch.setitem(sys.modules, "cupy", None)
    return open_cuda()


def _made(given: CalibrationImages, cuda: Cuda, **changes: Any) -> Any:
    from trtbench.engines.tensorrt.calibrator import make_calibrator

    return make_calibrator(dataclasses.replace(given, **changes), cuda)


def _at(address: int, count: int = 4) -> NDArray[np.float32]:
    """What stands at an address now; nothing queued is run for it."""
    from simulated_cuda import memory

    shape = (count, 3, 5, 5)
    return memory.region(address, 4 * int(np.prod(shape))).view(np.float32).reshape(shape).copy()


def test_batches_are_the_normalised_images_in_their_order_and_done_when_handed_out(
    images: CalibrationImages, either: Cuda
) -> None:
    calibrator = _made(images, either)
    found = []
    while (addresses := calibrator.get_batch(["input"])) is not None:
        assert len(addresses) == 1
        found.append(_at(addresses[0]))

    assert calibrator.error is None
    assert np.concatenate(found).tobytes() == normalise(_PIXELS[:8], _FIT).tobytes()
    assert calibrator.get_batch(["input"]) is None


def test_a_batch_stays_as_it_is_until_the_next_is_asked_for(images: CalibrationImages, either: Cuda) -> None:
    calibrator = _made(images, either)
    (address,) = calibrator.get_batch(["input"])
    before = _at(address)

    with either.current():
        either.allocate(4096)
        either.synchronize()
    calibrator.get_batch_size()
    calibrator.read_calibration_cache()

    assert _at(address).tobytes() == before.tobytes()


def test_a_short_last_batch_is_left_out_and_said(images: CalibrationImages, cuda: Cuda) -> None:
    assert _made(images, cuda).notes == ("2 of 10 calibration images are left out: the last batch of 4 is short",)
    assert _made(images, cuda, batch_size=5).notes == ()
    assert _made(images, cuda).get_batch_size() == 4


def test_pixels_go_up_once_and_nothing_comes_back(
    images: CalibrationImages, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cupy

    copies: list[tuple[int, int]] = []
    real = cupy.cuda.runtime.memcpyAsync

    def counted(target: int, source: int, size: int, kind: int, stream: int) -> None:
        copies.append((kind, size))
        real(target, source, size, kind, stream)

    monkeypatch.setattr(cupy.cuda.runtime, "memcpyAsync", counted)
    up = cupy.cuda.runtime.memcpyHostToDevice

    calibrator = _made(images, cuda)
    assert copies == [(up, _PIXELS.nbytes), (up, 3 * 256 * 4)]
    del copies[:]
    calibrator.get_batch(["input"])
    calibrator.get_batch(["input"])
    assert copies == [(up, 4 * 8), (up, 4 * 8)]  # which images: four int64


def test_pycuda_says_that_batches_are_laid_out_on_the_host(images: CalibrationImages, either: Cuda) -> None:
    said = [note for note in _made(images, either).notes if "on the host" in note]

    assert bool(said) == either.package.startswith("pycuda")


@pytest.mark.parametrize(
    ("algorithm", "name"), [("entropy", "ENTROPY_CALIBRATION_2"), ("minmax", "MINMAX_CALIBRATION")]
)
def test_the_algorithm_is_that_of_the_base_class(
    images: CalibrationImages, cuda: Cuda, algorithm: str, name: str
) -> None:
    assert _made(images, cuda, algorithm=algorithm).get_algorithm().name == name


def test_tensorrt_11_has_no_calibrators_and_importing_ours_is_no_error(
    images: CalibrationImages, tensorrt_11_double: ModuleType
) -> None:
    from trtbench.engines.cuda import open_cuda

    with pytest.raises(UnsupportedError) as raised:
        _made(images, open_cuda())

    assert f"got TensorRT {tensorrt_11_double.__version__}" in str(raised.value)
    assert raised.value.cure == "ask for int8 or int8+fp16"


def test_the_library_calibrates_with_it_and_its_cache_says_what_the_images_were(
    images: CalibrationImages, cuda: Cuda, float_graph: Path, tmp_path: Path
) -> None:
    from trtbench.engines.base import BuildRequest
    from trtbench.engines.tensorrt.backend import TENSORRT
    from trtbench.engines.tensorrt.caches import parse_cache

    assert cuda.stream
    pixels = np.random.default_rng(1).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)
    np.save(images.images, pixels)
    fit = dataclasses.replace(_FIT, size=8)
    request = BuildRequest(
        source=float_graph,
        engine=tmp_path / "e.plan",
        precision="int8-implicit",
        num_classes=4,
        input_shape=fit.input_shape,
        calibration=dataclasses.replace(images, preprocessing=fit, algorithm="minmax"),
    )

    built = TENSORRT.build(request)

    assert any("1 of 9 calibration images are left out" in note for note in built.notes)
    found = parse_cache(images.cache.read_text(), origin="c")
    assert found.algorithm == "MinMaxCalibration"
    # The double searches no threshold: its scale is the largest magnitude over 127, of whole batches alone.
    assert found.scales["input"] == np.float32(np.abs(normalise(pixels[:8], fit)).max() / 127)
    assert any("ranges from the calibration cache" in note for note in TENSORRT.build(request).notes)


def test_an_error_in_a_callback_is_kept_and_ends_the_images_and_no_cache_is_written(
    images: CalibrationImages, cuda: Cuda
) -> None:
    calibrator = _made(images, cuda)

    assert calibrator.get_batch(["input", "mask"]) is None

    assert isinstance(calibrator.error, CalibrationError)
    assert "a network of one input, got input, mask" in str(calibrator.error)
    assert calibrator.get_batch(["input"]) is None
    calibrator.write_calibration_cache(b"TRT-1-A\n")
    assert not images.cache.exists()


def test_the_builder_raises_what_went_wrong_in_a_callback(
    images: CalibrationImages, cuda: Cuda, float_graph: Path, tmp_path: Path
) -> None:
    from trtbench.engines.base import BuildRequest
    from trtbench.engines.tensorrt.backend import TENSORRT

    assert cuda.stream
    images.cache.parent.write_text("a file where the folder of caches should be")
    np.save(images.images, np.zeros((4, 3, 8, 8), np.uint8))
    request = BuildRequest(
        source=float_graph,
        engine=tmp_path / "e.plan",
        precision="int8-implicit",
        num_classes=4,
        input_shape=(3, 8, 8),
        calibration=dataclasses.replace(images, preprocessing=dataclasses.replace(_FIT, size=8)),
    )

    with pytest.raises(StoreError, match="cannot write"):
        TENSORRT.build(request)


def test_the_cache_is_read_where_everything_fits(images: CalibrationImages, cuda: Cuda) -> None:
    first = _made(images, cuda)
    assert first.read_calibration_cache() is None
    first.write_calibration_cache(memoryview(b"TRT-101601-EntropyCalibration2\n"))

    second = _made(images, cuda)

    assert second.read_calibration_cache() == b"TRT-101601-EntropyCalibration2\n"
    assert "ranges from the calibration cache key.cache" in second.notes


def _other_images(images: CalibrationImages) -> dict[str, Any]:
    path = images.images.with_name("other.npy")
    np.save(path, _PIXELS[::-1])
    return {"images": path}


def _moved(images: CalibrationImages) -> dict[str, Any]:
    path = images.cache.with_name("moved.cache")
    for source, target in ((images.cache, path), (_label(images.cache), _label(path))):
        target.write_bytes(source.read_bytes())
    return {"cache": path}


def _label(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.json")


@pytest.mark.parametrize(
    "change",
    [
        _other_images,
        _moved,
        lambda _: {"batch_size": 5},
        lambda _: {"algorithm": "minmax"},
        lambda _: {"preprocessing": dataclasses.replace(_FIT, mean=(0.48, 0.44, 0.41))},
    ],
)
def test_a_cache_of_anything_else_is_never_read(
    images: CalibrationImages, cuda: Cuda, change: Callable[[CalibrationImages], dict[str, Any]]
) -> None:
    _made(images, cuda).write_calibration_cache(b"TRT-1-A\n")

    other = _made(images, cuda, **change(images))

    assert other.read_calibration_cache() is None
    assert any("is not read: it was made from other images, settings" in note for note in other.notes)


def test_a_cache_of_another_tensorrt_is_never_read(
    images: CalibrationImages, cuda: Cuda, tensorrt_10_double: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    _made(images, cuda).write_calibration_cache(b"TRT-1-A\n")
    monkeypatch.setattr(tensorrt_10_double, "__version__", "10.13.3.9")

    assert _made(images, cuda).read_calibration_cache() is None


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda cache: cache.write_bytes(b"TRT-1-B\n"), "it is not the file that was written"),
        (lambda cache: _label(cache).unlink(), "it has no label"),
        (lambda cache: _label(cache).write_text("{"), "it has no label"),
        (lambda cache: _label(cache).write_text(json.dumps([1])), "it has no label"),
    ],
)
def test_a_cache_that_was_changed_or_has_no_label_is_never_read(
    images: CalibrationImages, cuda: Cuda, harm: Callable[[Path], object], words: str
) -> None:
    _made(images, cuda).write_calibration_cache(b"TRT-1-A\n")
    harm(images.cache)

    calibrator = _made(images, cuda)

    assert calibrator.read_calibration_cache() is None
    assert any(words in note for note in calibrator.notes)
    assert calibrator.error is None


@pytest.mark.parametrize(
    "content",
    [_PIXELS[:3], _PIXELS.astype(np.float32), _PIXELS[:, :2], np.zeros((4, 3, 5), np.uint8)],
)
def test_images_that_do_not_fit_are_refused(images: CalibrationImages, cuda: Cuda, content: NDArray[Any]) -> None:
    np.save(images.images, content)

    with pytest.raises(CalibrationError, match="'4 or more', 3, 5, 5"):
        _made(images, cuda)


def test_images_that_cannot_be_read_are_refused(images: CalibrationImages, cuda: Cuda) -> None:
    images.images.write_bytes(b"no array")

    with pytest.raises(CalibrationError, match=r"expected a \.npy of uint8"):
        _made(images, cuda)


def test_images_that_do_not_fit_the_device_are_out_of_memory(
    images: CalibrationImages, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "oom-alloc")

    with pytest.raises(OutOfMemoryError):
        _made(images, cuda)


def test_closing_frees_the_device(images: CalibrationImages, either: Cuda) -> None:
    before = either.memory()
    calibrator = _made(images, either)
    assert either.memory()[0] < before[0]

    calibrator.close()

    assert either.memory() == before


def test_the_builders_thread_is_served_too(images: CalibrationImages, either: Cuda) -> None:
    calibrator = _made(images, either)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(calibrator.get_batch(["input"])))
    thread.start()
    thread.join()

    assert calibrator.error is None
    assert _at(found[0][0]).tobytes() == normalise(_PIXELS[:4], _FIT).tobytes()

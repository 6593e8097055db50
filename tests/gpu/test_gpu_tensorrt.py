"""What needs TensorRT: every precision builds, computes what PyTorch computes, scores, and is timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from trtbench.data import normalise
from trtbench.engines.base import backend
from trtbench.engines.sidecar import read_sidecar
from trtbench.errors import UnsupportedError
from trtbench.make.makings import Makings
from trtbench.make.networks import dense
from trtbench.models import load_model
from trtbench.running import Places, build_suite
from trtbench.suite import Suite, parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trtbench.engines.tensorrt.session import TensorrtEngine

pytestmark = [pytest.mark.tensorrt, pytest.mark.slow]

# Largest relative error of the logits (Euclidean, over 64 images): the unit roundoff of the type, 2^-24, 2^-11 (TF32
# and FP16) or 2^-8, times what twenty layers may add up. INT8 is of another kind: its steps are 1/127 of a range.
_TOLERANCE = {
    "fp32": 1e-4,
    "tf32": 1e-2,
    "fp16": 1e-2,
    "bf16": 6e-2,
    "int8": 0.25,
    "int8+fp16": 0.25,
    "int8-implicit": 0.25,
    "int8-implicit+fp16": 0.25,
}
_LARGEST_DROP = 0.03  # of top-1, on 900 digits
_TEXT = """
name: device
data: {{source: digits}}
model:
  name: resnet20
  train: {{epochs: 8, batch_size: 64, lr: 0.1, schedule: one-cycle, augment: {{crop_padding: 2, flip: false}}}}
variants: [{{kind: dense, name: dense}}]
export: {{exporter: torchscript}}
calibration: {{per_class: 20, method: entropy}}
engines: [{{backend: tensorrt, precisions: ["{precision}"]}}]
bench: {{batch_sizes: [1, 32]}}
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    root = tmp_path_factory.mktemp("device")
    return Places(runs=root / "runs", engines=root / "engines", calib=root / "calib")


def _suite(precision: str) -> Suite:
    return parse_suite(_TEXT.format(precision=precision), origin="device.yaml")


@pytest.fixture(scope="module")
def reference(places: Places) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """The test images as the network's input, PyTorch's float32 logits of them on the CPU, and the labels."""
    makings = Makings(_suite("fp32"), places)
    checkpoint = dense(makings).path("model.safetensors")
    network = load_model("resnet20", num_classes=10, checkpoint=checkpoint).model.eval()
    images = normalise(makings.dataset.test.images, makings.dataset.preprocessing)
    with torch.inference_mode():
        logits = network(torch.from_numpy(images)).numpy()
    return images, logits, makings.dataset.test.labels


@pytest.fixture(scope="module")
def engine(places: Places) -> Callable[[str], TensorrtEngine]:
    """Build and open an engine of a precision, once; skip where this TensorRT or this GPU has no such precision."""
    opened: dict[str, Any] = {}

    def make(precision: str) -> TensorrtEngine:
        if precision not in opened:
            (built,) = [one for one in build_suite(_suite(precision), places) if one.plan.backend == "tensorrt"]
            if built.status == "unsupported":
                pytest.skip(built.reason)
            assert built.path is not None, built.reason
            opened[precision] = backend("tensorrt").open(built.path, read_sidecar(built.path), {})
        found: TensorrtEngine = opened[precision]
        return found

    return make


def _logits(engine: TensorrtEngine, images: NDArray[np.float32], *, batch: int) -> NDArray[np.float32]:
    session = engine.session(batch)
    found = []
    for start in range(0, len(images) - batch + 1, batch):
        session.copy_in(images[start : start + batch])
        session.enqueue()
        session.synchronize()
        found.append(session.copy_out())
    session.close()
    return np.concatenate(found)


@pytest.mark.parametrize("precision", _TOLERANCE)
def test_every_precision_computes_what_pytorch_does_and_scores(
    engine: Callable[[str], TensorrtEngine], reference: tuple[NDArray[Any], ...], precision: str
) -> None:
    images, expected, labels = reference

    found = _logits(engine(precision), images, batch=1)

    error = np.linalg.norm(found[:64] - expected[:64]) / np.linalg.norm(expected[:64])
    assert error < _TOLERANCE[precision]
    top1, float_top1 = ((logits.argmax(axis=1) == labels).mean() for logits in (found, expected))
    assert float_top1 > 0.9
    assert float_top1 - top1 < _LARGEST_DROP


def test_the_two_profiles_compute_the_same(
    engine: Callable[[str], TensorrtEngine], reference: tuple[NDArray[Any], ...]
) -> None:
    images = reference[0][:64]

    one, many = (_logits(engine("fp32"), images, batch=batch) for batch in (1, 32))

    np.testing.assert_allclose(one, many, rtol=1e-3, atol=1e-3)


def test_a_batch_that_no_profile_takes_is_unsupported(engine: Callable[[str], TensorrtEngine]) -> None:
    with pytest.raises(UnsupportedError, match="build with 7"):
        engine("fp32").session(7)


def test_a_cuda_graph_is_captured_and_computes_the_same(
    engine: Callable[[str], TensorrtEngine], reference: tuple[NDArray[Any], ...]
) -> None:
    session = engine("fp16").session(32)
    session.copy_in(reference[0][:32])
    session.enqueue()
    plain = session.copy_out()

    session.enqueue()
    graph = session.copy_out()

    assert session.describe().settings["cuda_graph"] is True, session.describe().notes
    np.testing.assert_array_equal(plain, graph)
    session.close()


def test_times_hang_together(engine: Callable[[str], TensorrtEngine]) -> None:
    session = engine("fp32").session(32)
    session.time(50, launches_per_sample=1, scope="device")

    device = np.median(session.time(200, launches_per_sample=1, scope="device"))
    whole = np.median(session.time(200, launches_per_sample=1, scope="host-to-host"))
    packed = np.median(session.time(50, launches_per_sample=10, scope="device")) / 10
    compute = float(np.median(session.time_parts(200).compute))

    assert packed < device < whole
    assert compute < device
    assert (session.describe().memory_bytes or 0) > 0
    session.close()

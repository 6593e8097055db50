"""Whoever looks at some images sees every class, in equal numbers, also where images come class by class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from trtbench.compress.method import Context, method_of
from trtbench.data import normalise
from trtbench.make.graphs import float_graph, half_graph, ranges
from trtbench.make.makings import Makings
from trtbench.make.networks import dense, load_network
from trtbench.steps import network as pruned_network
from trtbench.steps import step
from trtbench.studies.truth import TrueArithmetic
from trtbench.suite import parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.records import Dataset, Split
    from trtbench.running import Places

_CLASSES, _PER_CLASS = 3, 300  # the first 640 training images are of all classes, but not equally
_VARIANTS = {
    "taylor": "kind: channels, ratio: 0.5, importance: taylor",
    "hessian": "kind: channels, ratio: 0.5, importance: hessian, steps: 2",
    "second-order": "kind: weights, sparsity: 0.5, method: second-order, steps: 1, images: 60",
    "second-order of groups": "kind: nm, pattern: '2:4', method: second-order, images: 60",
    "batch norms anew": "kind: weights, sparsity: 0.5, batch_norm: recalibrate, images: 60",
    "batch norms by validation": "kind: nm, pattern: '2:4', batch_norm: validation, images: 60",
    "fixed point": "kind: fixed_point, scheme: best, images: 60",
    "activations": "kind: fixed_point, scheme: symmetric, activations: 8, images: 60",
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Callable[[str], Any]:
    root = tmp_path_factory.mktemp("ordered")
    random = np.random.default_rng(0)
    for split, count in (("train", _PER_CLASS), ("test", 4)):
        for label in range(_CLASSES):
            folder = root / split / f"class-{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")

    def make(variant: str) -> Any:
        text = f"""
name: ordered
data: {{source: 'folder:{root}', size: 8}}
model: {{name: 'tiny_nets:resnet8', checkpoint: '{checkpoint}'}}
variants: [{{{variant}, name: looked-at, fine_tune: false}}]
export: {{exporter: torchscript}}
calibration: {{per_class: 4, method: minmax}}
"""
        return parse_suite(text, origin="ordered.yaml")

    return make


@dataclass
class _Seen:
    """Which images of a split passed by, by their normalised pixels; noise and inner tensors are none of them."""

    split: Split
    dataset: Dataset
    places: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        pixels = normalise(self.split.images, self.dataset.preprocessing)
        self._known = {image.tobytes(): place for place, image in enumerate(pixels)}

    def look(self, arrays: Iterator[NDArray[Any]]) -> None:
        for array in arrays:
            self.places |= {self._known[image.tobytes()] for image in array if image.tobytes() in self._known}

    @property
    def by_class(self) -> list[int]:
        counts = Counter(self.split.labels[sorted(self.places)].tolist())
        return [counts[label] for label in range(_CLASSES)]


def _seen_by_networks(seen: _Seen, work: Callable[[], object]) -> list[int]:
    handle = register_module_forward_pre_hook(
        lambda _module, inputs: seen.look(one.detach().numpy() for one in inputs[:1] if one.shape[1:] == (3, 8, 8))
    )
    try:
        work()
    finally:
        handle.remove()
    return seen.by_class


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(text, id=name, marks=() if name in {"taylor", "second-order", "fixed point"} else pytest.mark.slow)
        for name, text in _VARIANTS.items()
    ],
)
def test_a_method_sees_every_class_in_equal_numbers(suite: Any, places: Places, variant: str) -> None:
    makings = Makings(suite(variant), places)
    (config,) = makings.suite.variants
    config, dataset = config.settled(builds_int8=False), makings.dataset
    context = Context(dataset=dataset, budget=makings.suite.fine_tune, tune=lambda *_, **__: None)
    network = load_network(makings, dense(makings))

    counts = _seen_by_networks(_Seen(dataset.train, dataset), lambda: method_of(config)(network, config, context))

    assert min(counts) >= 20
    assert max(counts) - min(counts) <= 1  # 640 is no multiple of 3


def test_the_step_that_prunes_sees_every_class_in_equal_numbers(suite: Any, places: Places) -> None:
    makings = Makings(suite(_VARIANTS["taylor"]), places)
    seen = _Seen(makings.dataset.train, makings.dataset)

    counts = _seen_by_networks(seen, lambda: step(makings.suite, pruned_network, None))

    assert min(counts) >= 200
    assert max(counts) - min(counts) <= 1


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[Any]]:
    """What ONNX Runtime is fed with."""
    found: list[NDArray[Any]] = []
    run = onnxruntime.InferenceSession.run

    def recording(self: Any, outputs: Any, inputs: Any, *options: Any) -> Any:
        found.extend(inputs.values())
        return run(self, outputs, inputs, *options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", recording)
    return found


def test_signal_to_noise_is_of_every_class_in_equal_numbers(suite: Any, places: Places, fed: list[Any]) -> None:
    makings = Makings(suite("kind: dense"), places)
    graph = onnx.load(float_graph(makings, makings.suite.variants[0]).path("model.onnx"))
    seen = _Seen(makings.dataset.validation, makings.dataset)

    fed.clear()
    TrueArithmetic(makings, graph, split="validation").tensor_snr_db(graph, [graph.graph.node[0].output[0]])

    seen.look(iter(fed))
    assert sum(seen.by_class) >= 60
    assert max(seen.by_class) - min(seen.by_class) <= 1


def test_calibration_and_the_check_of_half_precision_see_every_class_in_equal_numbers(
    suite: Any, places: Places, fed: list[Any]
) -> None:
    makings = Makings(suite("kind: dense"), places)
    (variant,) = makings.suite.variants
    float_graph(makings, variant)
    made: dict[str, Callable[[], object]] = {
        "ranges": lambda: ranges(makings, variant),
        "fp16": lambda: half_graph(makings, variant, precision="fp16", method="trtbench"),
    }
    for make in made.values():
        seen = _Seen(makings.dataset.train, makings.dataset)
        fed.clear()
        make()
        seen.look(iter(fed))
        assert seen.by_class == [4] * _CLASSES

"""What INT8 costs real networks on real images, in true Q/DQ arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from trtbench.calibrate.manifest import sample_balanced
from trtbench.calibrate.ranges import collect_histograms, thresholds
from trtbench.data import load_dataset, normalise
from trtbench.graph.export import export_onnx
from trtbench.graph.lint import lint
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.reference import run_reference
from trtbench.models import load_model
from trtbench.suite import DataConfig, ExportConfig, Method

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.precision import Runtime
    from trtbench.records import Dataset

pytestmark = [pytest.mark.shared, pytest.mark.slow]

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_PER_CLASS = 20
_BATCH = 50


@dataclass(frozen=True)
class _Trained:
    proto: onnx.ModelProto
    dataset: Dataset

    def correct(self, proto: onnx.ModelProto) -> int:
        test = self.dataset.test
        logits = [run_reference(proto, {"input": self._batch(rows)})["logits"] for rows in _batches(len(test))]
        return int((np.concatenate(logits).argmax(axis=1) == test.labels).sum())

    def quantized(self, method: Method, runtime: Runtime) -> onnx.ModelProto:
        plan = plan_qdq(self.proto, runtime=runtime)
        train = self.dataset.train
        chosen = sample_balanced(train.labels, num_classes=10, per_class=_PER_CLASS, seed=0)
        activations = (
            run_reference(
                self.proto,
                {"input": normalise(train.images[chosen[rows]], self.dataset.preprocessing)},
                outputs=activation_tensors(plan),
            )
            for rows in _batches(len(chosen))
        )
        return insert_qdq(self.proto, plan, thresholds(collect_histograms(activations), method=method))

    def _batch(self, rows: slice) -> NDArray[np.float32]:
        return normalise(self.dataset.test.images[rows], self.dataset.preprocessing)


def _batches(count: int) -> list[slice]:
    return [slice(start, start + _BATCH) for start in range(0, count, _BATCH)]


@pytest.fixture(scope="module")
def akamaster(weights: Path, cifar10_lossless: Path, tmp_path_factory: pytest.TempPathFactory) -> _Trained:
    dataset = load_dataset(DataConfig.model_validate({"source": f"folder:{cifar10_lossless}", **_IMAGENET}))
    model = load_model("resnet20_a", num_classes=10, checkpoint=weights / "akamaster-resnet20-12fca82f.th").model
    path = tmp_path_factory.mktemp("akamaster") / "net.onnx"
    export_onnx(model, path, input_shape=(3, 32, 32), config=ExportConfig(exporter="torchscript"))
    return _Trained(onnx.load(path), dataset)


def test_the_exported_graph_scores_what_the_checkpoint_does(akamaster: _Trained) -> None:
    assert len(akamaster.dataset.test) == 1017
    assert akamaster.correct(akamaster.proto) == 932


@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime-cpu"])
def test_int8_by_entropy_loses_at_most_2_of_932_images(akamaster: _Trained, runtime: Runtime) -> None:
    quantized = akamaster.quantized("entropy", runtime)
    assert plan_qdq(akamaster.proto, runtime=runtime).summary == "19 of 19 convolutions, 1 of 1 linear layers"
    assert runtime != "tensorrt" or lint(quantized) == ()
    assert akamaster.correct(quantized) >= 932 - 2


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_int8_by_the_other_methods_loses_at_most_half_a_point(akamaster: _Trained, method: Method) -> None:
    assert akamaster.correct(akamaster.quantized(method, "tensorrt")) >= 932 - 5

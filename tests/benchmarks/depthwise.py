"""What each calibration option brings to a depthwise network: MobileNetV2 on real CIFAR-10 photos.

    SHARED=DIR python -m tests.benchmarks.depthwise --checkpoint mobilenet.safetensors --out DIR

Writes `DIR/calibration-depthwise.json`: what FP32 and INT8 get right in true Q/DQ arithmetic, on the validation images,
by which options are chosen, and on the test images. Train the network first, for half an hour on one CPU thread:

    trtbench train --model mobilenet_v2_cifar --data folder:DIR/data/cifar10-lossless.tar.xz --epochs 10 \\
        --batch-size 64 --optimizer adamw --lr 0.003 --schedule one-cycle --weight-decay 0.02 --output OUT
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tests.benchmarks.subjects import shared_folder
from trtbench.data import batches
from trtbench.disk import file_sha256, write_atomically
from trtbench.graph.reference import run_reference_batches
from trtbench.make.calibration import manifest
from trtbench.make.graphs import float_graph, quantized_graph
from trtbench.make.makings import Makings, Places
from trtbench.suite import CalibrationConfig, DataConfig, adhoc_suite

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trtbench.records import Split

_BATCH = 32


def main() -> int:
    """Measure the options one by one and together, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    archive = shared_folder() / "data" / "cifar10-lossless.tar.xz"
    results = measure(options.checkpoint, archive, configs())
    text = json.dumps(results, indent=1) + "\n"
    write_atomically(options.out / "calibration-depthwise.json", text)
    sys.stdout.write(text)
    return 0


def configs() -> list[dict[str, Any]]:
    """Return the options to compare: other ranges, each option alone, and all together."""
    return [
        {"method": "entropy"},
        {"method": "mse"},
        {"method": "entropy", "weights": "mse"},
        {"method": "entropy", "bias_correction": True},
        {"method": "entropy", "rounding": "gptq"},
        {"method": "entropy", "rounding": "gptq", "bias_correction": True},
        {"method": "entropy", "equalise": True},
        {"method": "entropy", "equalise": True, "rounding": "gptq", "bias_correction": True},
    ]


def measure(checkpoint: Path, archive: Path, chosen: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return counts on validation and test: of the float network, and of the INT8 one with each set of options."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = _makings(checkpoint, archive, CalibrationConfig(), folder)
        dataset, variant = base.dataset, base.suite.variants[0]
        splits = {"validation": dataset.validation, "test": dataset.test}
        graph = float_graph(base, variant).path("model.onnx")
        logits = {split: _logits(base, graph, images) for split, images in splits.items()}
        rows = []
        for options in chosen:
            makings = _makings(checkpoint, archive, CalibrationConfig.model_validate(options), folder)
            makings.__dict__["dataset"] = dataset
            quantized = quantized_graph(makings, variant).path("model.onnx")
            row: dict[str, Any] = {"options": options}
            for split, images in splits.items():
                found = _logits(base, quantized, images)
                row[split] = {
                    "below_fp32": _correct(logits[split], images) - _correct(found, images),
                    "correct": _correct(found, images),
                    "other_classes": int((found.argmax(axis=1) != logits[split].argmax(axis=1)).sum()),
                    "logits_mse": float(np.square(found - logits[split]).mean()),
                }
            rows.append(row)
        fp32 = {
            split: {"correct": _correct(logits[split], images), "total": len(images)}
            for split, images in splits.items()
        }
        return {
            "model": "mobilenet_v2_cifar",
            "checkpoint_sha256": file_sha256(checkpoint),
            "calibration_images": manifest(base).facts.images,
            "fp32": fp32,
            "int8": rows,
        }


def _makings(checkpoint: Path, archive: Path, calibration: CalibrationConfig, folder: Path) -> Makings:
    suite = adhoc_suite(
        model={"name": "mobilenet_v2_cifar", "checkpoint": checkpoint},
        data=DataConfig(source=f"folder:{archive}"),
        calibration=calibration,
    )
    return Makings(suite, Places(runs=folder, engines=folder, calib=folder / "calib"))


def _logits(makings: Makings, graph: Path, split: Split) -> Any:
    inputs = ({"input": one} for one in batches(split.images, makings.dataset.preprocessing, size=_BATCH))
    return np.concatenate([next(iter(found.values())) for found in run_reference_batches(onnx.load(graph), inputs)])


def _correct(logits: Any, split: Split) -> int:
    return int((logits.argmax(axis=1) == split.labels).sum())


if __name__ == "__main__":
    sys.exit(main())

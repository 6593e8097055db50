"""What the benchmarks of trtbench itself measure: real images, and a ResNet-20 of seeded weights, built as by users."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from trtbench.bench.records import EngineFile
from trtbench.models import build_model, save_model
from trtbench.running import Places, build_suite
from trtbench.suite import parse_suite

_SUITE = """
name: subjects
data: {{source: digits}}
model: {{name: resnet20, checkpoint: '{checkpoint}'}}
variants: [{{kind: dense, name: dense}}]
export: {{exporter: torchscript}}
calibration: {{per_class: 2, method: minmax}}
engines: [{{backend: onnxruntime-cpu, precisions: [fp32, int8]}}]
bench: {{baselines: []}}
"""


def shared_folder() -> Path:
    """Return the folder of real images and weights, $SHARED; without it the program ends with 2 and the cure."""
    folder = Path(os.environ.get("SHARED", "../shared"))
    if not (folder / "data").is_dir():
        sys.stderr.write(f"SHARED={folder} holds no data; set SHARED to the folder of real images and weights\n")
        sys.exit(2)
    return folder


def build_subjects(folder: Path) -> dict[str, EngineFile]:
    """Build the dense network's FP32 and INT8 engines in ONNX Runtime; how fast they are does not hang on training."""
    checkpoint = folder / "resnet20.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("resnet20", num_classes=10).eval()
    save_model(checkpoint, network, name="resnet20", num_classes=10, metadata={})
    suite = parse_suite(_SUITE.format(checkpoint=checkpoint), origin="subjects")
    built = build_suite(suite, Places(runs=folder / "runs", engines=folder / "engines", calib=folder / "calib"))
    found = {}
    for one in built:
        assert one.path is not None, one.reason
        found[one.plan.precision] = EngineFile(name=one.plan.precision, backend=one.plan.backend, path=one.path)
    return found

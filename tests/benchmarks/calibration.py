"""Calibration beside ONNX Runtime's and NVIDIA ModelOpt's: time, memory, and what the int8 graphs get right.

    SHARED=DIR python -m tests.benchmarks.calibration --out DIR [--repeats 3] [--modelopt-python PYTHON]

Every measurement is a process of its own on the same graph and the same images, in turn with the others, and the median
of `--repeats`; contenders.py says what the clock holds. `DIR/calibration.json` has `speedup_vs_ort_entropy_512`,
`rss_ratio_5000_to_250` and `images_below_fp32` by model, and every raw figure. ModelOpt pins an older ONNX Runtime, so
it may live in an environment of its own; where there is none, that is recorded. Exits 2 where $SHARED has no images.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tests.benchmarks.subjects import shared_folder
from trtbench.calibrate.manifest import make_manifest
from trtbench.data import batches, load_dataset
from trtbench.disk import write_atomically
from trtbench.environment.host import collect_host
from trtbench.graph.reference import run_reference_batches
from trtbench.make.graphs import float_graph, quantized_graph
from trtbench.make.makings import Makings, Places
from trtbench.suite import CalibrationConfig, DataConfig, adhoc_suite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.records import Dataset

_CONTENDERS = Path(__file__).with_name("contenders.py")
_MODELS = {
    "akamaster-resnet20": ("resnet20_a", "akamaster-resnet20-12fca82f.th"),
    "akamaster-resnet56": ("resnet56_a", "akamaster-resnet56-4bfd9763.th"),
}
# What these networks were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TIMED = 512  # images
_FEW, _MANY = 250, 5000
_SEEDS = (0, 1, 2, 3, 4)
_BATCH = CalibrationConfig().batch_size  # for every contender


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One tool and method; `python` runs it."""

    tool: str
    method: str
    python: str = sys.executable

    @property
    def name(self) -> str:
        """The name in the results."""
        return f"{self.tool}-{self.method}"


def main() -> int:
    """Measure everything and write the results."""
    options = _options()
    shared = shared_folder()
    data = shared / "data"
    lossless, jpeg = (_dataset(data / f"cifar10-{kind}.tar.xz") for kind in ("lossless", "jpeg"))
    contenders, absent = _contenders(options.modelopt_python)
    results: dict[str, Any] = {
        "speedup_vs_ort_entropy_512": {},
        "rss_ratio_5000_to_250": {},
        "images_below_fp32": {},
        "environment": _environment(),
        "absent": absent,
        "raw": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        images = {"lossless": _saved(lossless, _TIMED, scratch), "jpeg": _saved(jpeg, _MANY, scratch)}
        for model in options.models:
            bench = Bench(model=model, dataset=lossless, images=images, scratch=scratch, shared=shared)
            found = bench.measured(contenders, repeats=options.repeats)
            results["raw"][model] = found
            _summarise(results, model, found)
            write_atomically(options.out / "calibration.json", json.dumps(results, indent=1) + "\n")
    sys.stdout.write(json.dumps({key: results[key] for key in list(results)[:3]}, indent=1) + "\n")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One model: its float graph, the images to calibrate on, and the test images it is scored on."""

    model: str
    dataset: Dataset
    images: dict[str, Path]
    scratch: Path
    shared: Path

    def measured(self, contenders: Sequence[Contender], *, repeats: int) -> dict[str, Any]:
        """Return the raw figures of one model."""
        graph = float_graph(self._makings(CalibrationConfig()), self._variant).path("model.onnx")
        timed = {one.name: [] for one in contenders}  # type: dict[str, list[dict[str, Any]]]
        for _ in range(repeats):
            for one in contenders:
                timed[one.name].append(self._run(one, graph, kind="lossless", count=_TIMED))
        ours, theirs = Contender(tool="trtbench", method="entropy"), Contender(tool="onnxruntime", method="entropy")
        memory = {
            f"{ours.name}-{count}": [self._run(ours, graph, kind="jpeg", count=count) for _ in range(repeats)]
            for count in (_FEW, _MANY)
        }
        # ONNX Runtime keeps every activation, so 5,000 images are beyond it; and it takes whole batches only.
        whole = _FEW // _BATCH * _BATCH
        memory[f"{theirs.name}-{whole}"] = [self._run(theirs, graph, kind="jpeg", count=whole) for _ in range(repeats)]
        return {"timed_512": timed, "memory": memory, "accuracy": self._accuracy(graph, contenders)}

    def _run(self, one: Contender, graph: Path, *, kind: str, count: int) -> dict[str, Any]:
        command = [one.python, str(_CONTENDERS), "--tool", one.tool, "--method", one.method, "--graph", str(graph)]
        command += ["--images", str(self.images[kind]), "--count", str(count), "--batch-size", str(_BATCH)]
        command += ["--mean", *map(str, _MEAN), "--std", *map(str, _STD), "--output", str(self._quantized(one))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.scratch)
        if done.returncode:
            raise SystemExit(f"{one.name} on {self.model} failed:\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def _quantized(self, one: Contender) -> Path:
        return self.scratch / f"{self.model}.{one.name}.onnx"

    def _accuracy(self, graph: Path, contenders: Sequence[Contender]) -> dict[str, Any]:
        """Count what the float graph and every int8 graph get right on the test split, in true arithmetic."""
        fp32 = self._correct(graph)
        default = CalibrationConfig()
        seeds = [self._correct(self._ours(default.model_copy(update={"seed": seed}))) for seed in _SEEDS]
        others = {one.name: self._correct(self._quantized(one)) for one in contenders if one.tool != "trtbench"}
        return {
            "total": len(self.dataset.test),
            "fp32_correct": fp32,
            "settings": default.model_dump(mode="json"),
            "correct_by_seed": dict(zip(map(str, _SEEDS), seeds, strict=True)),
            "correct_of_others_512": others,
        }

    def _ours(self, calibration: CalibrationConfig) -> Path:
        return quantized_graph(self._makings(calibration), self._variant).path("model.onnx")

    def _correct(self, graph: Path) -> int:
        test = self.dataset.test
        inputs = ({"input": one} for one in batches(test.images, self.dataset.preprocessing, size=_BATCH))
        found = run_reference_batches(onnx.load(graph), inputs)
        logits = np.concatenate([next(iter(values.values())) for values in found])
        return int((logits.argmax(axis=1) == test.labels).sum())

    def _makings(self, calibration: CalibrationConfig) -> Makings:
        name, checkpoint = _MODELS[self.model]
        suite = adhoc_suite(
            model={"name": name, "checkpoint": self.shared / "weights" / checkpoint},
            data=_data(self.shared / "data" / "cifar10-lossless.tar.xz"),
            calibration=calibration,
        )
        folder = self.scratch / "trtbench"
        return Makings(suite, Places(runs=folder, engines=folder, calib=folder / f"calib-{calibration.seed}"))

    @property
    def _variant(self) -> Any:
        return self._makings(CalibrationConfig()).suite.variants[0]


def _summarise(results: dict[str, Any], model: str, found: dict[str, Any]) -> None:
    def median(runs: list[dict[str, Any]], figure: str) -> float:
        return float(statistics.median(run[figure] for run in runs))

    timed, memory, accuracy = found["timed_512"], found["memory"], found["accuracy"]
    ours, theirs = (median(timed[name], "wall_s") for name in ("trtbench-entropy", "onnxruntime-entropy"))
    many, few = (median(memory[f"trtbench-entropy-{count}"], "peak_rss_bytes") for count in (_MANY, _FEW))
    results["speedup_vs_ort_entropy_512"][model] = theirs / ours
    results["rss_ratio_5000_to_250"][model] = many / few
    results["images_below_fp32"][model] = accuracy["fp32_correct"] - accuracy["correct_by_seed"]["0"]


def _contenders(modelopt_python: str) -> tuple[list[Contender], dict[str, str]]:
    """Return who runs here, and why others do not."""
    found = [
        Contender(tool=tool, method=method)
        for tool, methods in {
            "trtbench": ("entropy", "minmax", "percentile"),
            "onnxruntime": ("entropy", "minmax", "percentile"),
        }.items()
        for method in methods
    ]
    code = "import modelopt.onnx.quantization"
    tried = subprocess.run([modelopt_python, "-c", code], capture_output=True, text=True, check=False)
    if tried.returncode:
        return found, {"modelopt": tried.stderr.strip().splitlines()[-1]}
    return [*found, Contender(tool="modelopt", method="entropy", python=modelopt_python)], {}


def _dataset(archive: Path) -> Dataset:
    return load_dataset(_data(archive))


def _data(archive: Path) -> DataConfig:
    return DataConfig(source=f"folder:{archive}", mean=_MEAN, std=_STD)


def _saved(dataset: Dataset, count: int, folder: Path) -> Path:
    """Write calibration images, every prefix balanced, as a file that the contenders map."""
    path = folder / f"{dataset.name.replace(':', '-')}.npy"
    indices = list(make_manifest(dataset, total=count, seed=0).indices)
    np.save(path, dataset.train.images[indices])
    return path


def _environment() -> dict[str, Any]:
    import importlib.metadata as packages

    cpu = collect_host().cpu
    names = ("onnx", "onnxruntime-gpu", "onnxruntime", "numpy")
    known = {found.metadata["Name"]: found.version for found in packages.distributions()}
    return {
        "cpu": cpu.model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: known[name] for name in names if name in known},
        "load_average": os.getloadavg(),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=list(_MODELS), default=list(_MODELS))
    parser.add_argument("--modelopt-python", default=os.environ.get("MODELOPT_PYTHON", sys.executable))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

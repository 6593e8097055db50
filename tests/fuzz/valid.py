"""Valid files of every kind that trtbench reads, small: what the cases change."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from tests.records import sidecar_of
from trtbench.calibrate.manifest import make_manifest, save_manifest
from trtbench.compress.codec import pack_checkpoint
from trtbench.data import load_dataset
from trtbench.engines.sidecar import Sidecar, write_sidecar
from trtbench.jsonable import sha256_of, to_jsonable
from trtbench.models import load_model, save_model
from trtbench.records import Preprocessing
from trtbench.shipping.bundle import Bundle, seal
from trtbench.store import Store
from trtbench.suite import DataConfig, parse_suite

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SUITE = """\
name: tiny
data: {source: digits, size: 8}
model: {name: 'onnx:net.onnx'}
variants:
  - {kind: dense, name: dense}
fine_tune: {epochs: 1, batch_size: 32, lr: 0.05}
calibration: {per_class: 2, method: minmax}
engines:
  - {backend: onnxruntime-cpu, precisions: [fp32, int8]}
bench: {batch_sizes: [1], duration: 0.1, warm_up: 0, processes: 1, baselines: []}
decision: {max_drop_pp: 2.0, objective: p50_ms, batch_size: 1}
"""
_REPORT = Path(__file__).parent.parent / "report" / "twenty-four-rows.json"
_FIT = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=8)


def write_all(folder: Path) -> None:
    """Write the valid files into a folder."""
    write_texts(folder)
    _write_networks(folder)
    _write_images(folder)
    dataset = load_dataset(DataConfig(size=8))
    save_manifest(folder / "manifest.json", make_manifest(dataset, per_class=2, seed=0))
    _write_store(folder / "runs" / ".store")


def write_texts(folder: Path) -> None:
    """Write a suite, a report, an engine with its sidecar and a bundle: what takes no library to write."""
    folder.mkdir(parents=True, exist_ok=True)
    suite = parse_suite(_SUITE, origin="suite.yaml")
    (folder / "suite.yaml").write_text(_SUITE, encoding="utf-8")
    (folder / "suite.json").write_text(json.dumps(suite.as_written()), encoding="utf-8")
    onnx.save(_graph(), folder / "net.onnx")
    Image.new("RGB", (8, 8)).save(folder / "one.png")
    for place in (folder, folder / "other"):
        place.mkdir(exist_ok=True)
        (place / "report.json").write_bytes(_REPORT.read_bytes())
    write_engine(folder / "engine.json")
    _write_bundle(folder / "bundle")


def _write_networks(folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()).eval()
        for classes in (2, 10):
            small = load_model("resnet20", num_classes=classes, checkpoint=None).model
            save_model(folder / f"r{classes}.safetensors", small, name="resnet20", num_classes=classes, metadata={})
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, folder / "net.pth")
    save_model(folder / "net.safetensors", network, name="net", num_classes=10, metadata={"by": "fuzz"})
    pack_checkpoint(folder / "net.safetensors", output=folder / "net.tbz", clusters=4, is_halved=False)


def _graph() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weights: dict[str, NDArray[Any]] = {
        "w": random.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "b": np.zeros(4, np.float32),
        "fc": random.standard_normal((4, 10)).astype(np.float32),
        "shape": np.array([-1, 4], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Reshape", ["p", "shape"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "fc"], ["y"], name="classifier"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _write_images(folder: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("a", "b"):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{number}.png")
    picture = Image.open(folder / "images" / "test" / "a" / "0.png")
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm"):
        picture.save(folder / f"one.{suffix}")
    files = sorted(path for path in (folder / "images").rglob("*") if path.is_file())
    for method, name in ((zipfile.ZIP_DEFLATED, "set.zip"), (zipfile.ZIP_LZMA, "lzma.zip")):
        with zipfile.ZipFile(folder / name, "w", method) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder / "images"))
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path in files:
                tar.add(path, path.relative_to(folder / "images").as_posix())
        plain = buffer.getvalue()
    packers: dict[str, Any] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    for suffix, packer in packers.items():
        (folder / f"set.tar{suffix}").write_bytes(packer(plain))


def _sidecar(engine: Path) -> Sidecar:
    return sidecar_of(
        engine,
        backend="fake",
        device="simulated",
        weight_bytes=0,
        preprocessing=_FIT,
        num_classes=10,
        widths=(16, 16),
        classes=tuple("0123456789"),
        options={"batch_sizes": [1, 2]},
        facts={
            "layers": {"layers": 3, "by_precision": {"fp32": 3}, "reformats": 0, "convolutions": {"conv": "fp32"}},
        },
        rebuild="trtbench build suite.yaml",
    )


def write_engine(engine: Path) -> None:
    """Write an engine of the fake runtime, and its sidecar."""
    engine.parent.mkdir(parents=True, exist_ok=True)
    script = {"ns_per_image": 1_000_000, "jitter": 0.05, "seed": 0, "classes": 10}
    engine.write_text(json.dumps(script), encoding="utf-8")
    write_sidecar(engine, _sidecar(engine))


def _write_bundle(folder: Path) -> None:
    engine = folder / "engine.json"
    write_engine(engine)
    own = _sidecar(engine)
    bundle = Bundle(
        engine="engine.json",
        row="dense fp32 fake b1",
        versions={"fake": "1"},
        batch_size=1,
        batch_sizes=(1, 2),
        profile=None,
        settings={},
        is_run=True,
        is_chosen=True,
        correct=800,
        total=900,
        drop_upper_pp=0.0,
        latency=None,
        limits={"max_drop_pp": 1.0},
        run_id="r",
        suite_sha256="0" * 64,
        manifest_sha256=None,
        **{
            name: getattr(own, name)
            for name in (
                *("variant", "precision", "achieved", "backend", "backend_version", "device", "machine", "model"),
                *("preprocessing", "classes", "source_sha256", "rebuild"),
            )
        },
    )
    seal(folder, {name: value for name, value in to_jsonable(bundle).items() if name != "files"})


def _write_store(root: Path) -> None:
    def make(folder: Path) -> dict[str, int]:
        (folder / "model.onnx").write_bytes(_graph().SerializeToString())
        return {"size": 3}

    store = Store(root)
    for number in range(2):
        store.make("graph", {"number": number}, make, content=("model.onnx",), label="net")


def resealed(document: dict[str, object]) -> str:
    """Return a document with the sha256 that its other fields give: an edit that its writer signed again."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return json.dumps({**rest, "sha256": sha256_of(rest)})

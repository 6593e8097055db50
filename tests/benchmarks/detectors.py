"""Networks that packages ship and that are no classifiers, held to themselves in float: FP32, INT8, and INT8 rescued.

    SHARED=DIR python -m tests.benchmarks.detectors --out DIR --work DIR

`nudenet` brings a YOLOv8n detector, `rapidocr-onnxruntime` PaddleOCR's text detector and its text direction network.
They are run as a suite is, on 512 photographs of CIFAR-10 that are enlarged (Pillow, bicubic); those of the networks
for text have words drawn on them. Half of the photographs calibrate, the others are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tests.benchmarks.subjects import shared_folder
from trtbench.data import balanced, load_dataset
from trtbench.disk import write_atomically
from trtbench.jsonable import to_jsonable
from trtbench.running import Places, run_suite
from trtbench.shipping import load
from trtbench.suite import DataConfig, parse_suite

if TYPE_CHECKING:
    from trtbench.progress import Event
    from trtbench.report.document import Report

NAME = "networks-detectors.json"
IMAGES = 512
_SUITE = """
name: {name}
data: {{source: 'images:{images}', size: [{high}, {wide}], mean: {mean}, std: {std}}}
model: {{name: 'onnx:{path}'}}
variants: [{{kind: dense, name: dense}}]
calibration: {{rescue: true}}
engines: [{{backend: onnxruntime-cpu, precisions: [fp32, int8]}}]
bench: {{batch_sizes: [1], duration: 0.1, warm_up: 0, processes: 1, baselines: []}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """An ONNX file of a package, and what its package feeds it with."""

    package: str
    module: str
    file: str
    size: tuple[int, int]
    mean: float
    std: float
    has_words: bool = False
    parts: tuple[tuple[str, int, int], ...] = ()  # of the output's second axis, with what each holds

    @property
    def path(self) -> Path:
        """Where the installed package has it."""
        found = util.find_spec(self.module)
        if found is None or found.origin is None:
            raise SystemExit(f"pip install {self.package}")
        return Path(found.origin).parent / self.file


NETWORKS = (
    Network(
        package="nudenet",
        module="nudenet",
        file="320n.onnx",
        size=(320, 320),
        mean=0.0,
        std=1.0,
        parts=(("coordinates", 0, 4), ("scores", 4, 22)),
    ),
    Network(
        package="rapidocr-onnxruntime",
        module="rapidocr_onnxruntime",
        file="models/ch_PP-OCRv4_det_infer.onnx",
        size=(320, 320),
        mean=0.5,
        std=0.5,
        has_words=True,
    ),
    Network(
        package="rapidocr-onnxruntime",
        module="rapidocr_onnxruntime",
        file="models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        size=(48, 192),
        mean=0.5,
        std=0.5,
        has_words=True,
    ),
)


def main() -> int:
    """Run each network's suite and keep what came of each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    archive = shared_folder() / "data" / "cifar10-lossless.tar.xz"
    split = load_dataset(DataConfig(source=f"folder:{archive}")).test
    photographs = split.images[balanced(split.labels, count=IMAGES, seed=0)]
    document: dict[str, Any] = {
        "command": "SHARED=DIR python -m tests.benchmarks.detectors --out DIR --work DIR",
        "packages": {name: metadata.version(name) for name in sorted({one.package for one in NETWORKS})},
        "images": IMAGES,
        "networks": [],
    }
    for network in NETWORKS:
        document["networks"].append(_measured(network, photographs, options.work))
        write_atomically(options.out / NAME, json.dumps(document, indent=1) + "\n")
    return 0


def _measured(network: Network, photographs: np.ndarray, work: Path) -> dict[str, Any]:
    name = Path(network.file).stem
    folder = work / name / "images"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index, pixels in enumerate(photographs):
        _enlarged(pixels, network, random).save(folder / f"{index:03}.png")
    text = _SUITE.format(
        name=name,
        images=folder,
        high=network.size[0],
        wide=network.size[1],
        mean=[network.mean] * 3,
        std=[network.std] * 3,
        path=network.path,
    )
    places = Places(runs=work / name / "runs", engines=work / name / "engines")
    report, _ = run_suite(parse_suite(text, origin=name), places, argv=(), now=datetime.now(UTC), tell=_say)
    found = {"package": network.package, "file": network.file, "size": network.size, "rows": _rows(report)}
    return {**found, "parts": _parts(network, report, sorted(folder.iterdir()))} if network.parts else found


def _parts(network: Network, report: Report, images: list[Path]) -> list[dict[str, Any]]:
    """Compare the INT8 engine with the FP32 one, part by part of the output, on all photographs."""
    outputs = {}
    for row in report.rows:
        with load(str(row.engine_path)) as predictor:
            (outputs[row.precision],) = predictor.outputs(images).values()
    found = []
    for name, start, end in network.parts:
        wanted, got = (outputs[one][:, start:end].astype(np.float64) for one in ("fp32", "int8"))
        noise = got - wanted
        snr_db = 10 * np.log10(np.square(wanted).sum() / np.square(noise).sum())
        largest = {"max_error": float(np.abs(noise).max()), "largest": float(wanted.max())}
        found.append({"name": name, "images": len(images), "snr_db": float(snr_db), **largest})
    return found


def _enlarged(pixels: np.ndarray, network: Network, random: np.random.Generator) -> Image.Image:
    """Return a photograph in the network's size, with words on it where the network reads."""
    high, wide = network.size
    image = Image.fromarray(pixels.transpose(1, 2, 0)).resize((wide, high), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(4 if network.has_words and high > 100 else int(network.has_words)):
        letters = "".join(random.choice(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"), 8))
        font = ImageFont.load_default(float(random.integers(18, 40)))
        place = int(random.integers(0, max(1, wide // 3))), int(random.integers(0, max(1, high - 40)))
        draw.text(place, letters, fill=tuple(int(one) for one in random.integers(0, 256, 3)), font=font)
    return image


def _rows(report: Report) -> list[dict[str, Any]]:
    rows = []
    for row in report.rows:
        calibration = row.calibration.method if row.calibration is not None else None
        rows.append(
            {
                "precision": row.shown_precision,
                "status": row.status,
                "reason": row.reason,
                "engine_bytes": row.engine_bytes,
                "achieved": row.achieved,
                "method": calibration,
                "notes": row.notes,
                "fidelity": to_jsonable(row.fidelity),
                "is_chosen": row.name == report.decision.winner,
            }
        )
    return rows


def _say(event: Event) -> None:
    if event.state != "progress":
        sys.stderr.write(f"{event.stage} {event.item} {event.state} {event.detail}\n")


if __name__ == "__main__":
    sys.exit(main())

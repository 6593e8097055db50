"""Measure quantization, codec and INT8 training on a real ResNet-20: python -m tests.benchmarks.quantize [STUDY...].

Reads $SHARED (default ../shared); writes docs/evidence/quantize.json. The weights are those of source study 002, scored
on 1,017 original CIFAR-10 test images; training and calibration images are the 5,170 original training images.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests.benchmarks.subjects import shared_folder
from trtbench.compress.codec import pack_checkpoint
from trtbench.data.folder import unpacked
from trtbench.disk import write_atomically
from trtbench.environment.host import collect_host
from trtbench.jsonable import to_jsonable
from trtbench.steps import accuracy, dynamic_onnx, learnt_onnx, packed_network, step
from trtbench.suite import CalibrationConfig, DataConfig, ExportConfig, adhoc_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.suite import Suite

_OUTPUT = Path(__file__).parents[2] / "docs" / "evidence" / "quantize.json"
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_KEPT = ("correct", "total", "bytes", "bits_per_weight", "float_layers", "seconds")


def main() -> int:
    """Measure what the arguments name, or everything, and write it into the evidence."""
    shared = shared_folder()
    images = unpacked(shared / "data" / "cifar10-lossless.tar.xz")
    data = DataConfig(source=f"folder:{images}", mean=_MEAN, std=_STD)
    checkpoint = shared / "weights" / "yi-resnet20-pretrained.pt"
    for name in sys.argv[1:] or _STUDIES:
        with tempfile.TemporaryDirectory() as folder:
            measured = _STUDIES[name](checkpoint, data, Path(folder))
        found = json.loads(_OUTPUT.read_bytes()) if _OUTPUT.exists() else {}
        found |= {"machine": _machine(), name: measured}
        write_atomically(_OUTPUT, json.dumps(dict(sorted(found.items())), indent=1) + "\n")
    return 0


def _machine() -> dict[str, Any]:
    return {
        "cpu": collect_host().cpu.model,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _source(checkpoint: Path, data: DataConfig, folder: Path) -> dict[str, Any]:
    """Sweep the source study's quantizers; `seconds` is the whole sweep's."""
    start = time.monotonic()
    found = {
        f"{scheme} {bits}": _quantized(checkpoint, data, folder, bits=bits, scheme=scheme)
        for scheme in ("asymmetric", "symmetric")
        for bits in (6, 5, 4, 3, 2)
    }
    return {**found, "seconds": time.monotonic() - start}


def _quantized(checkpoint: Path, data: DataConfig, folder: Path, **config: Any) -> dict[str, Any]:
    output = folder / f"{config['scheme']}-{config['bits']}.tbz"
    if "activations" in config:
        output = folder / "activations.tbz"
    variant = {"kind": "fixed_point", **config}
    found = to_jsonable(step(_suite(checkpoint, data, variants=variant), packed_network, output))
    _tell(config, found)
    return {key: found[key] for key in _KEPT}


def _codec(checkpoint: Path, data: DataConfig, folder: Path) -> dict[str, Any]:
    """Pack the 2-bit network, and the float one with shared weights, and score what the files decode to."""
    _quantized(checkpoint, data, folder, bits=2, scheme="best")
    asked: dict[str, tuple[Path, dict[str, Any]]] = {
        "best 2 bits, half": (folder / "best-2.tbz", {"is_halved": True}),
        "float": (checkpoint, {}),
        "16 clusters, half": (checkpoint, {"clusters": 16, "is_halved": True}),
    }
    found = {}
    for name, (source, options) in asked.items():
        output = folder / "packed.tbz"
        made = to_jsonable(pack_checkpoint(source, output=output, **options))
        scored = step(_suite(output, data), accuracy, None)
        del made["output"]
        found[name] = {"correct": scored.correct, "total": scored.total, "top1": scored.top1, **made}
        _tell({"pack": name}, found[name])
    return found


def _suite(checkpoint: Path, data: DataConfig, **sections: Any) -> Suite:
    return adhoc_suite(
        model={"name": "resnet20", "checkpoint": checkpoint},
        data=data,
        export=ExportConfig(exporter="torchscript"),
        calibration=CalibrationConfig(per_class=50),
        **sections,
    )


def _dynamic(checkpoint: Path, data: DataConfig, folder: Path) -> dict[str, Any]:
    suite = _suite(checkpoint, data, variants={"kind": "dynamic_int8"})
    return _plain(to_jsonable(step(suite, dynamic_onnx, folder / "dynamic.onnx")))


def _qat(checkpoint: Path, data: DataConfig, folder: Path) -> dict[str, Any]:
    start = time.monotonic()
    suite = _suite(checkpoint, data, variants={"kind": "qat"}, fine_tune={"epochs": 1, "lr": 0.0005})
    found = to_jsonable(step(suite, learnt_onnx, folder / "qat"))
    return {**_plain(found), "seconds": time.monotonic() - start}


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    _tell({}, found)
    return {key: value for key, value in found.items() if key not in {"output", "notes"}}


def _tell(config: dict[str, Any], found: dict[str, Any]) -> None:
    sys.stderr.write(f"{config} {found['correct']} of {found['total']} {found.get('bytes', '')}\n")


_STUDIES: dict[str, Callable[[Path, DataConfig, Path], dict[str, Any]]] = {
    **{f"best {bits}": partial(_quantized, bits=bits, scheme="best") for bits in (2, 3, 4, "ternary", 1)},
    "best 4, activations 4": partial(_quantized, bits=4, scheme="best", activations=4),
    "source": _source,
    "codec": _codec,
    "dynamic_int8": _dynamic,
    "qat_int8": _qat,
}

if __name__ == "__main__":
    raise SystemExit(main())

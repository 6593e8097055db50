"""Measure what pruning without training costs a real ResNet-20, and write docs/evidence/sparsify.json.

    SHARED=../shared python -m tests.benchmarks.sparsify [NAME ...]

Every number is of the network read back from its saved file, on the whole test split; with names only those are
measured anew, the others stay as the file has them. Exits 2 where $SHARED holds no images and weights.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.benchmarks.subjects import shared_folder
from trtbench.environment import collect_environment
from trtbench.jsonable import to_jsonable
from trtbench.steps import accuracy, sparse_network, step
from trtbench.suite import DataConfig, NmVariant, Suite, WeightsVariant, adhoc_suite

_EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence" / "sparsify.json"
_SHORTCUTS = ("downsample",)  # the source study leaves its 1x1 shortcuts whole


def _weights(**keys: Any) -> WeightsVariant:
    return WeightsVariant(kind="weights", name="w", **keys)


def _nm(**keys: Any) -> NmVariant:
    return NmVariant(kind="nm", name="nm", **keys)


_VARIANTS: dict[str, WeightsVariant | NmVariant] = {
    **{
        f"layer-{100 * q:.0f}": _weights(sparsity=q, scope="layer", exclude=_SHORTCUTS)
        for q in (0.2, 0.4, 0.6, 0.7, 0.8)
    },
    "global-80": _weights(sparsity=0.8),
    "global-80-recalibrated": _weights(sparsity=0.8, batch_norm="recalibrate"),
    "dense-recalibrated": _weights(sparsity=0.0, batch_norm="recalibrate"),
    "second-order-80": _weights(sparsity=0.8, method="second-order"),
    "second-order-90": _weights(sparsity=0.9, method="second-order"),
    "nm-2-4-magnitude": _nm(),
    "nm-2-4-second-order": _nm(method="second-order"),
    "nm-4-8-second-order": _nm(pattern="4:8", method="second-order"),
}


def main(names: list[str]) -> None:
    """Measure and write."""
    shared = shared_folder()
    checkpoint = shared / "weights" / "yi-resnet20-pretrained.pt"
    archive = shared / "data" / "cifar10-lossless.tar.xz"
    data = DataConfig(source=f"folder:{archive}", mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    scored = step(_suite(checkpoint, data), accuracy, None)
    dense = {"correct": scored.correct, "total": scored.total, "top1": scored.top1}
    rows = json.loads(_EVIDENCE.read_text())["rows"] if names and _EVIDENCE.is_file() else {}
    for name in names or _VARIANTS:
        rows[name] = _measured(checkpoint, data, _VARIANTS[name])
        _write(rows, dense)


def _suite(checkpoint: Path, data: DataConfig, **sections: Any) -> Suite:
    return adhoc_suite(model={"name": "resnet20", "checkpoint": checkpoint}, data=data, **sections)


def _measured(checkpoint: Path, data: DataConfig, variant: WeightsVariant | NmVariant) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        suite = _suite(checkpoint, data, variants=variant)
        found = to_jsonable(step(suite, sparse_network, Path(folder) / "sparse.safetensors"))
    kept = ("correct", "total", "sparsity", "zeros", "weights", "seconds")
    return {
        "variant": variant.settled(builds_int8=False).model_dump(mode="json", exclude={"name"}),
        **{name: found[name] for name in kept},
        "nm": found["record"].get("nm"),
        "notes": found["notes"][1:],
    }


def _write(rows: dict[str, Any], dense: dict[str, Any]) -> None:
    host = collect_environment().host
    document = {
        "command": "SHARED=../shared python -m tests.benchmarks.sparsify",
        "network": "yi-resnet20-pretrained.pt, a ResNet-20 of source study 002",
        "images": "cifar10-lossless.tar.xz: 4,653 training, 517 validation, 1,017 test images",
        "cpu": host.cpu.model,
        "cores": host.cpu.logical_cores,
        "torch": version("torch"),
        "dense": dense,
        "rows": rows,
    }
    _EVIDENCE.parent.mkdir(parents=True, exist_ok=True)
    _EVIDENCE.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"{list(rows)[-1]}: {rows[list(rows)[-1]]['correct']}\n")


if __name__ == "__main__":
    main(sys.argv[1:])

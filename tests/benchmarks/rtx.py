"""What NVIDIA's real compiler makes of the graphs of many networks, without a GPU: layers, file and weights.

    python -m tests.benchmarks.rtx --out docs/evidence/rtx

Weights are fresh and ranges set, so that nothing here is an accuracy; nothing is timed. What the file has already is
not built again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
from tabulate import tabulate

from tests.rtx.networks import graphs, network
from trtbench.disk import write_atomically
from trtbench.engines.base import BuildOptions, BuildRequest, backend
from trtbench.errors import RowError

NETWORKS = {
    "resnet20": 32,
    "resnet20_a": 32,
    "resnet32": 32,
    "resnet56_a": 32,
    "resnet18_3x3": 32,
    "mobilenet_v2_cifar": 32,
    "mobilenet_v2": 64,
    "torchvision:squeezenet1_1": 64,
    "torchvision:mobilenet_v3_small": 64,
    "torchvision:shufflenet_v2_x1_0": 64,
    "torchvision:regnet_y_400mf": 64,
    "resnet18_imagenet": 64,
}
TARGETS = ("sm89", "sm120")
_HEAD = """# What TensorRT for RTX's compiler makes of our graphs

Built on a CPU by `python -m tests.benchmarks.rtx --out docs/evidence/rtx`, at batch 1; `builds.json` has the rest.
Weights are fresh and ranges set: nothing was run, scored or timed. MB = 10^6 bytes; weights and layers are sm89's."""


def main() -> None:
    """Build what the file does not have yet, and write it after each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    path = parser.parse_args().out / "builds.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    there = {row["network"] for row in rows}
    for name, size in NETWORKS.items():
        if name not in there:
            rows += _rows(name, size)
            version = backend("tensorrt-rtx").facts().version
            command = "python -m tests.benchmarks.rtx --out docs/evidence/rtx"
            found = {"command": command, "tensorrt_rtx": version, "batch_size": 1, "rows": rows}
            write_atomically(path, json.dumps(found, indent=1) + "\n")
    write_atomically(path.with_suffix(".md"), f"{_HEAD}\n\n{_table(rows)}\n")


def _table(rows: list[dict[str, Any]]) -> str:
    """Return a line for each network and precision, with the file of each target."""
    lines: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        key = (row["network"], row["precision"])
        words = row.get("achieved") or row["reason"]
        line = lines.setdefault(key, [*key, words, row.get("layers"), _megabytes(row.get("weight_bytes"))])
        line.append(_megabytes(row.get("engine_bytes")))
    headers = ["network", "precision", "achieved", "layers", "weights MB", *(f"{target} MB" for target in TARGETS)]
    return tabulate(list(lines.values()), headers=headers, tablefmt="pipe", disable_numparse=True)


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.2f}"


def _rows(name: str, size: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made, plan = graphs(network(name, size=size), Path(folder), size=size)
        for precision, graph in made.items():
            source = Path(folder) / f"{precision}.onnx"
            onnx.save(graph, source)
            for target in TARGETS:
                found = _built(source, precision, target)
                rows.append({"network": name, "size": size, "precision": precision, "target": target, **found})
        for row in rows:
            row["planned"] = plan.summary
    return rows


def _built(source: Path, precision: str, target: str) -> dict[str, Any]:
    engine = source.with_suffix(f".{target}")
    request = BuildRequest(
        source=source, engine=engine, precision=precision, options=BuildOptions(batch_sizes=(1,), targets=(target,))
    )
    try:
        result = backend("tensorrt-rtx").build(request)
    except RowError as error:
        return {"status": "failed", "reason": str(error)}
    layers = result.facts["layers"]
    return {
        "status": "built",
        "achieved": result.achieved,
        "layers": layers["layers"],
        "by_precision": layers["by_precision"],
        "onnx_bytes": source.stat().st_size,
        "engine_bytes": engine.stat().st_size,
        "weight_bytes": result.weight_bytes,
    }


if __name__ == "__main__":
    main()

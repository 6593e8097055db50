"""The raw samples of a run on disk: raw/<row>.json, one file a row, written with the report and read again later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.latency import TimedRow
from trtbench.errors import ConfigError
from trtbench.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.bench.measured import Measured
    from trtbench.rows import Row

_PLAIN = "device latency"


def write_raw(folder: Path, row: Row, measured: Measured) -> None:
    """Keep every sample: by the way it was taken, the blocks, the process of each, and when it was.

    Raises:
        StoreError: the folder cannot be written.
    """
    samples = {}
    for way in measured.ways:
        timed = measured.timed_as(way)
        if timed is not None:
            samples[f"{way.scope} {way.mode}"] = {
                "blocks_ns": [block.tolist() for block in timed.blocks],
                "processes": list(timed.processes),
                "spans_ns": [list(span) for span in timed.spans],
            }
    raw: dict[str, Any] = {"row": row.name, "samples": samples, "predictions": measured.predictions}
    write_atomically(_path(folder, row), json.dumps(raw))


def read_blocks(folder: Path, row: Row) -> TimedRow | None:
    """Return the plain samples of a row of the run in this folder; None where none were kept.

    Raises:
        ConfigError: the file is damaged.
    """
    path = _path(folder, row)
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_bytes()).get("samples", {}).get(_PLAIN)
        if kept is None:
            return None
        return TimedRow(
            blocks=tuple(np.array(block, dtype=np.int64) for block in kept["blocks_ns"]),
            processes=tuple(kept["processes"]),
            spans=tuple((since, until) for since, until in kept["spans_ns"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        cure = "remove it; the report then stands on its own figures"
        raise ConfigError(f"samples {path}", expected="a whole file", got=repr(error), cure=cure) from error


def _path(folder: Path, row: Row) -> Path:
    return folder / "raw" / f"{row.name.replace(' ', '_')}.json"

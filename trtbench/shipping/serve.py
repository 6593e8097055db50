"""A bundle served by a real Triton server, on loopback: it must count what the run counted, and is put under load."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields at run time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.errors import CapabilityError, GateError

if TYPE_CHECKING:
    from trtbench.records import Split

_STREAMS = (1, 4, 16)
_REQUESTS = 1_600  # of each load: a hundred a stream, and enough for a p99
_CURE = "see what its server says: python -m venv triton; triton/bin/pip install nvidia-pytriton pillow 'numpy<2' ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What Triton answered: `counts` by protocol and batch, `refused` beyond the largest, and each load's figures."""

    counts: tuple[Mapping[str, Any], ...]
    refused: tuple[Mapping[str, Any], ...]
    loads: tuple[Mapping[str, Any], ...]


def serve_check(folder: Path, test: Split, *, largest: int, batch: int, correct: int, python: Path) -> Served:
    """Serve a bundle's Python model and send the whole test split through HTTP and gRPC.

    Args:
        folder: of the bundle.
        test: the images and their labels.
        largest: batch that the server forms; 0 where the engine takes `batch` only.
        batch: of the row.
        correct: what the run counted.
        python: the interpreter of an environment with nvidia-pytriton, Pillow and the engine's runtime.

    Raises:
        CapabilityError: the interpreter cannot serve.
        GateError: a count is another, or a batch beyond the largest is taken.
    """
    batches = sorted({1, min(3, largest), largest}) if largest else [batch]
    with tempfile.TemporaryDirectory(prefix="trtbench-") as scratch:
        place = Path(scratch)
        np.save(place / "pixels.npy", np.ascontiguousarray(test.images.transpose(0, 2, 3, 1)))
        np.save(place / "labels.npy", test.labels)
        task = {
            "pixels": str(place / "pixels.npy"),
            "labels": str(place / "labels.npy"),
            "output": str(place / "found.json"),
            "repository": str(folder.absolute() / "triton" / "python"),
            "batches": batches,
            "is_fixed": not largest,
            "refused": batches[-1] + 1,
            "streams": _STREAMS,
            "requests": _REQUESTS,
        }
        (place / "task.json").write_text(json.dumps(task), encoding="utf-8")
        script = place / "triton_check.py"
        source = resources.files("trtbench.shipping.templates") / "triton_check.py"
        script.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        _run([str(python), "-E", str(script), str(place / "task.json")])
        found = json.loads((place / "found.json").read_bytes())
    served = Served(**{key: tuple(value) for key, value in found.items()})
    _check(served, correct=correct, total=len(test), name=folder.name)
    return served


def _run(command: list[str]) -> None:
    what = f"Triton by {command[0]}"
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CapabilityError(what, expected="a Python with nvidia-pytriton", got=str(error), cure=_CURE) from error
    if run.returncode:
        got = " ".join(run.stderr.split())[-1000:]
        raise CapabilityError(what, expected="a server that gets ready", got=got or "nothing", cure=_CURE)


def _check(served: Served, *, correct: int, total: int, name: str) -> None:
    other = [one for one in served.counts if (one["correct"], one["total"]) != (correct, total)]
    if other:
        got = ", ".join(f"{one['correct']} by {one['protocol']} at batch {one['batch']}" for one in other)
        raise GateError(f"bundle {name}, served", expected=f"{correct} of {total} images right", got=got)
    if len(served.refused) < len({one["protocol"] for one in served.counts}):
        raise GateError(f"bundle {name}, served", expected="a batch beyond the largest to be refused", got="an answer")

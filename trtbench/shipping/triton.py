"""A bundle as model repositories of NVIDIA's Triton: an ensemble before the server's own backend, and one Python model.

It can be proven: a real server on loopback must count what the run counted, and is put under load.

`models/` is for servers that have the backend of the engine: a Python step before it and an ensemble over both.
`python/` is for those that have the Python backend alone: one model that runs the engine itself. Both are asked alike.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields at run time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.disk import storing, write_atomically
from trtbench.errors import CapabilityError, GateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.records import Split


# What Triton calls the backend of an engine, by who runs it in a bundle, and the file it wants there
_PLATFORMS = {
    "onnxruntime": ("onnxruntime_onnx", "model.onnx"),
    "tensorrt": ("tensorrt_plan", "model.plan"),
}
_STREAMS = (1, 4, 16)
_REQUESTS = 1_600  # of each load: a hundred a stream, and enough for a p99
_SERVER = "see what its server says: python -m venv triton; triton/bin/pip install nvidia-pytriton pillow 'numpy<2' ..."


def largest_batch(described: Mapping[str, Any], *, takes_any: bool) -> int:
    """Return the largest batch that Triton may form; 0 where the engine takes one size only.

    Args:
        described: the fields of the bundle.
        takes_any: the engine takes batches of every size, and was measured at some.
    """
    if described["profile"] is not None:
        low, _, high = described["profile"]
        return high if low == 1 else 0
    return max(described["batch_sizes"]) if takes_any else 0


def served_name(described: Mapping[str, Any]) -> str:
    """Return what a server calls the model of a bundle."""
    return "network" if described.get("outputs") else "classifier"


def write_repositories(
    folder: Path, described: Mapping[str, Any], *, ships: str, takes_any: bool, tensors: tuple[str, str]
) -> None:
    """Write both repositories and a client into a bundle's folder.

    Args:
        folder: of the bundle, with its engine.
        described: the fields of the bundle.
        ships: who runs the engine in a bundle, as `suite.BACKENDS` says.
        takes_any: the engine takes batches of every size.
        tensors: the names of the engine's input and of its logits.

    Raises:
        StoreError: they cannot be written.
    """
    root, fit, model = folder / "triton", described["preprocessing"], served_name(described)
    own = {one["name"]: one["shape"] for one in described.get("outputs", ())}
    native = own or {tensors[1]: [len(described["classes"])]}
    asked_for = {name: name for name in own} or {tensors[1]: "LOGITS"}
    largest = largest_batch(described, takes_any=takes_any)
    fixed = [] if largest else [described["batch_size"]]
    high, wide = (fit["size"],) * 2 if isinstance(fit["size"], int) else fit["size"]
    asked = [
        _tensor("PIXELS", "UINT8", [*fixed, high, wide, 3], is_optional=True),
        _tensor("IMAGE", "STRING", [*fixed, 1], is_optional=True),
    ]
    given = [_tensor(asked_for[name], "FP32", [*fixed, *shape], labels=not own) for name, shape in native.items()]
    inputs = _tensor("INPUT", "FP32", [*fixed, 3, high, wide])
    batching = "dynamic_batching {}\n" if largest > 1 else ""
    head = f"max_batch_size: {largest}\n"
    on_cpu = "instance_group [{ kind: KIND_CPU }]\n"
    parameters = f'parameters {{ key: "preprocessing" value {{ string_value: {json.dumps(json.dumps(fit))} }} }}\n'
    platform, file = _PLATFORMS[ships]
    taken = _tensor(tensors[0], "FP32", [*fixed, 3, high, wide])
    computed = [_tensor(name, "FP32", [*fixed, *shape]) for name, shape in native.items()]
    configs = {
        f"python/{model}": f'backend: "python"\n{head}{_io(asked, given)}{on_cpu}{batching}',
        "models/preprocess": f'backend: "python"\n{head}{_io(asked, [inputs])}{on_cpu}{parameters}',
        "models/engine": f'platform: "{platform}"\n{head}{_io([taken], computed)}{batching}',
        f"models/{model}": f'platform: "ensemble"\n{head}{_io(asked, given)}{_steps(tensors[0], asked_for)}',
    }
    for place, text in configs.items():
        name = place.rpartition("/")[2]
        write_atomically(root / place / "config.pbtxt", f'name: "{name}"\n{text}')
        write_atomically(root / place / "1" / ".keep", "")  # a version is a folder, and a zip file has none without
        if name == model and not own:
            write_atomically(root / place / "labels.txt", "".join(f"{one}\n" for one in described["classes"]))
    templates, data = resources.files("trtbench.shipping.templates"), resources.files("trtbench.data")
    for template, place in (
        ("triton_model", f"python/{model}/1/model.py"),
        ("triton_preprocess", "models/preprocess/1/model.py"),
        ("triton_client", "client.py"),
    ):
        write_atomically(root / place, (templates / f"{template}.py").read_text(encoding="utf-8"))
    write_atomically(root / "models/preprocess/1/pixels.py", (data / "pixels.py").read_text(encoding="utf-8"))
    with storing(root):
        shutil.copyfile(folder / described["engine"], root / "models" / "engine" / "1" / file)


def _tensor(name: str, kind: str, dims: Sequence[int], *, is_optional: bool = False, labels: bool = False) -> str:
    more = (" optional: true" if is_optional else "") + (' label_filename: "labels.txt"' if labels else "")
    return f'{{ name: "{name}" data_type: TYPE_{kind} dims: [{", ".join(map(str, dims))}]{more} }}'


def _io(inputs: Sequence[str], outputs: Sequence[str]) -> str:
    return "".join(
        f"{kind} [\n  " + ",\n  ".join(tensors) + "\n]\n" for kind, tensors in (("input", inputs), ("output", outputs))
    )


def _steps(taken: str, given: Mapping[str, str]) -> str:
    def maps(kind: str, pairs: Mapping[str, str]) -> str:
        return " ".join(f'{kind}_map {{ key: "{key}" value: "{value}" }}' for key, value in pairs.items())

    first = f'model_name: "preprocess" model_version: -1 {maps("input", {"PIXELS": "PIXELS", "IMAGE": "IMAGE"})}'
    second = f'model_name: "engine" model_version: -1 {maps("input", {taken: "INPUT"})}'
    return (
        "ensemble_scheduling { step [\n"
        f"  {{ {first} {maps('output', {'INPUT': 'INPUT'})} }},\n"
        f"  {{ {second} {maps('output', given)} }}\n"
        "] }\n"
    )


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
        raise CapabilityError(what, expected="a Python with nvidia-pytriton", got=str(error), cure=_SERVER) from error
    if run.returncode:
        got = " ".join(run.stderr.split())[-1000:]
        raise CapabilityError(what, expected="a server that gets ready", got=got or "nothing", cure=_SERVER)


def _check(served: Served, *, correct: int, total: int, name: str) -> None:
    other = [one for one in served.counts if (one["correct"], one["total"]) != (correct, total)]
    if other:
        got = ", ".join(f"{one['correct']} by {one['protocol']} at batch {one['batch']}" for one in other)
        raise GateError(f"bundle {name}, served", expected=f"{correct} of {total} images right", got=got)
    if len(served.refused) < len({one["protocol"] for one in served.counts}):
        raise GateError(f"bundle {name}, served", expected="a batch beyond the largest to be refused", got="an answer")

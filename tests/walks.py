"""Three walks through the house, traced on a tiny real run, as docs/architecture.md has them: `python tests/walks.py`.

A walk is what stands on the stack at a few moments on a value's way, each function of trtbench where it is first met.
A worker process, and a thread, has a stack of its own. Lambdas and comprehensions are not counted.

The ratio is followed from the text it stands in, an image from its folder, a sample from those who ask for it.
Who asks for images to be loaded, `Makings.dataset`, or laid down for workers, the run, is no hop of its own (`since`).
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = _ROOT / "trtbench"
_FOLDER = "TRTBENCH_WALKS"  # the variable that tells workers where their stacks go
_CLASSES = ("circle", "square")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a stack is taken: `function` is called, or the built-in `clock` is, and `within` is on the stack.

    `since` is the function the stack is read from, where who calls it has nothing to do with the value; `worker` says
    that it happens in a worker process.
    """

    function: str = ""
    since: str = ""
    within: str = ""
    clock: Callable[[], int] | None = None
    when: Callable[[dict[str, Any]], bool] = bool
    worker: bool = False

    def has_come(self, frame: FrameType, event: str, arg: object) -> bool:
        """Whether this call is the moment."""
        if self.clock is not None:
            is_called = event == "c_call" and arg is self.clock
        else:
            is_called = event == "call" and frame.f_code.co_qualname == self.function and self.when(frame.f_locals)
        return is_called and (not self.within or self.within in {one.f_code.co_qualname for one in _stack(frame)})


WALKS = {
    "A ratio from YAML to torch-pruning": (
        Moment(function="validated"),
        Moment(function="BasePruner.__init__", when=lambda own: own["pruning_ratio"] == 0.5),
    ),
    "An image to a count": (
        Moment(function="decode", since="load_dataset"),
        Moment(function="_read_into"),
        Moment(function="mapped", since="mapped"),
        Moment(function="_opened"),
        Moment(function="WorkerProcess.ask", when=lambda own: own["do"] == "score"),
        Moment(function="normalise", within="Worker.score", worker=True),
        Moment(function="OnnxRuntimeSession.enqueue", within="Worker.score", worker=True),
        Moment(function="score", within="score_engine"),
    ),
    "A latency sample to the page": (
        Moment(function="WorkerProcess.ask", when=lambda own: own["do"] == "time"),
        Moment(clock=time.perf_counter_ns, within="Worker.time", worker=True),
        Moment(function="latency_record"),
        Moment(
            function="Column.cell",
            within="render_html",
            when=lambda own: own["self"].key == "p50_ms" and own["self"].has(own["line"]),
        ),
    ),
}


def _stack(frame: FrameType | None) -> list[FrameType]:
    """Return the frames from the outermost to this one."""
    found: list[FrameType] = []
    while frame is not None:
        found.insert(0, frame)
        frame = frame.f_back
    return found


def _hops(frame: FrameType, *, since: str) -> list[tuple[str, str]]:
    """Return function and file of what is trtbench's on the stack, from one function on."""
    hops = [
        (one.f_code.co_qualname.replace("<locals>.", ""), path.relative_to(_PACKAGE).as_posix())
        for one in _stack(frame)
        if not one.f_code.co_name.startswith("<") and (path := Path(one.f_code.co_filename)).is_relative_to(_PACKAGE)
    ]
    names = [name for name, _ in hops]
    return hops[names.index(since) if since in names else 0 :]


def trace(folder: Path, *, worker: bool) -> None:
    """Write into the folder the stack at each moment of this side of the process boundary, the first time it comes."""
    waiting = {
        folder / f"{title}.{index}.json": moment
        for title, moments in WALKS.items()
        for index, moment in enumerate(moments)
        if moment.worker == worker
    }

    def look(frame: FrameType, event: str, arg: object) -> None:
        if event not in {"call", "c_call"}:
            return
        for path, moment in [(path, one) for path, one in waiting.items() if one.has_come(frame, event, arg)]:
            waiting.pop(path, None)  # another thread may have been here
            path.write_text(json.dumps(_hops(frame, since=moment.since)), encoding="utf-8")

    sys.setprofile(look)
    threading.setprofile(look)  # images are decoded by a pool


def tiny_suite(folder: Path) -> str:
    """Return the text of a suite on images made into the folder, with a network that nobody trained."""
    import torch
    from PIL import Image

    from trtbench.models import build_model, save_model

    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 4)):
        for name in _CLASSES:
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
                image.save(folder / part / name / f"{number}.png")
    torch.manual_seed(0)
    network = build_model("resnet20", num_classes=len(_CLASSES)).eval()
    save_model(folder / "net.safetensors", network, name="resnet20", num_classes=len(_CLASSES), metadata={})
    return f"""
name: tiny
data: {{source: 'folder:{folder}', size: 16, validation: 0.25}}
model: {{name: resnet20, checkpoint: '{folder / "net.safetensors"}'}}
variants: [{{kind: dense, name: dense}}, {{kind: channels, name: half, ratio: 0.5}}]
fine_tune: {{epochs: 1, batch_size: 4, lr: 0.01}}
export: {{exporter: torchscript}}
engines: [{{backend: onnxruntime-cpu, precisions: [fp32]}}]
bench: {{batch_sizes: [1], duration: 0.01, warm_up: 0, block_ms: 2, processes: 1, baselines: []}}
"""


def run(folder: Path) -> None:
    """Run the tiny suite with both sides traced."""
    from trtbench.bench import measure
    from trtbench.bench.processes import Workers
    from trtbench.running import Places, run_suite
    from trtbench.suite import load_suite

    suite = folder / "suite.yaml"
    suite.write_text(tiny_suite(folder / "images"), encoding="utf-8")
    os.environ |= {_FOLDER: str(folder), "PYTHONPATH": str(_ROOT)}
    vars(measure)["Workers"] = functools.partial(Workers, module="tests.walks")
    trace(folder, worker=False)
    places = Places(runs=folder / "runs", engines=folder / "engines", calib=folder / "calib")
    run_suite(load_suite(suite), places, argv=[], now=datetime(2026, 1, 2, tzinfo=UTC))
    sys.setprofile(None)


def walked(folder: Path) -> str:
    """Return the walks in words, from the stacks that a run left."""
    blocks = []
    for title, moments in WALKS.items():
        hops: dict[tuple[str, str], bool] = {}
        for index, moment in enumerate(moments):
            for name, file in json.loads((folder / f"{title}.{index}.json").read_text(encoding="utf-8")):
                hops.setdefault((name, file), moment.worker)
        lines = [
            f"{number:4}  {name:<28}{file}{'  (in the worker)' * worker}"
            for number, ((name, file), worker) in enumerate(hops.items(), start=1)
        ]
        blocks.append("\n".join([f"{title}: {len(hops)} hops, {len({file for _, file in hops})} files", *lines]))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    if _FOLDER in os.environ:
        from trtbench.bench.worker import own_output, serve

        trace(Path(os.environ[_FOLDER]), worker=True)
        serve(sys.stdin, own_output())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            run(Path(scratch))
            sys.stdout.write(walked(Path(scratch)) + "\n")

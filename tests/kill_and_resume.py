"""Kill `trtbench build` and `trtbench bench` at random moments, run them to their end, and compare with runs in peace.

    python tests/kill_and_resume.py --times 100 --output kills.json

A moment is an amount of processor time, of the command and its workers, so that a busy machine moves no kill to where
nothing has happened yet. The commands are forked off a process that has imported what they import: a kill in the
middle of an import hits nothing. Exits 1 where rows, structure, accuracy counts or hashes differ, a report cannot be
read, a partial file is left after the rerun, or a worker outlives its parent; timings are not compared.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_COMPARED = {"build_s", "seconds", "resumed_from"}  # what a clock decides
_SET_CHILD_SUBREAPER = 36  # prctl(2): orphans below this process become its children
_ORPHAN_S = 10.0
_LONGEST_S = 3600.0
_CLASSES = ("circle", "square", "star")
_SUITE = """
name: tiny
data: {{source: 'folder:{images}', size: 16, validation: 0.25}}
model: {{name: 'resnet20', checkpoint: '{checkpoint}'}}
variants:
  - {{kind: dense, name: tuned, fine_tune: true}}
  - {{kind: channels, name: half, ratio: 0.5, round_to: 8, fine_tune: false}}
fine_tune: {{epochs: 2, batch_size: 9, lr: 0.01}}
export: {{exporter: torchscript}}
calibration: {{per_class: 4, method: minmax}}
bench: {{batch_sizes: [1], duration: 0.05, warm_up: 0, block_ms: 10, processes: 1, baselines: []}}
decision: {{max_drop_pp: 40}}
"""


def main() -> int:
    """Run the comparison and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="", help="a suite; by default one of a minute, on 54 images")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--each", type=int, default=10, help="kills before everything is run to its end and begun anew")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        suite = arguments.suite or write_suite(folder)
        seen = compare(suite, folder, times=arguments.times, each=arguments.each, seed=arguments.seed)
    command = f"python tests/kill_and_resume.py --times {arguments.times} --seed {arguments.seed}"
    text = json.dumps({"command": command, **seen}, indent=1)
    sys.stdout.write(text + "\n")
    if arguments.output is not None:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return 0 if seen["is_equal"] else 1


def write_suite(folder: Path) -> str:
    """Write three classes of noise around a colour of their own, untrained weights and a suite of them."""
    import numpy as np
    import torch
    from PIL import Image

    from trtbench.models import build_model, save_model

    pick = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for index, name in enumerate(_CLASSES):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = pick.integers(0, 100, (16, 16, 3), dtype=np.uint8)
                pixels[..., index] += 120
                Image.fromarray(pixels).save(place / f"{number}.png")
    torch.manual_seed(0)
    checkpoint = folder / "weights.safetensors"
    network = build_model("resnet20", num_classes=len(_CLASSES)).eval()
    save_model(checkpoint, network, name="resnet20", num_classes=len(_CLASSES), metadata={})
    suite = folder / "tiny.yaml"
    suite.write_text(_SUITE.format(images=folder / "images", checkpoint=checkpoint), encoding="utf-8")
    return str(suite)


def compare(
    suite: str, folder: Path, *, times: int, each: int, seed: int, verbs: tuple[str, ...] = ("build", "bench")
) -> dict[str, Any]:
    """Run the verbs in peace and under kills, and say whether they come to the same and where they do not."""
    before, reaping = frozenset(_below(os.getpid())), ctypes.CDLL(None).prctl
    reaping(_SET_CHILD_SUBREAPER, 1)
    peace, killed = folder / "peace", folder / "killed"
    spent = {verb: _run(verb, suite, peace) for verb in verbs}
    wanted, pick = state(peace), random.Random(seed)
    kills = collections.Counter[str]()
    made, orphans, unread, partial, reruns = collections.Counter[str](), 0, 0, 0, 0
    differing: set[str] = set()
    while sum(kills.values()) < times:
        shutil.rmtree(killed, ignore_errors=True)
        for _ in range(min(each, times - sum(kills.values()))):
            verb = pick.choice(verbs)
            if _kill(verb, suite, killed, moment=pick.uniform(0.0, spent[verb])):
                kills[verb] += 1
                made[str(len(list(_store(killed).glob("*/*/artefact.json"))))] += 1
                unread += _unread(killed)
                orphans += _orphans(before)
        for verb in verbs:
            _run(verb, suite, killed)
        reruns += 1
        found = state(killed)
        differing |= {key for key in {*wanted, *found} if wanted.get(key) != found.get(key)}
        partial += len([path for path in killed.rglob("*.partial") if path.is_file()])
        orphans += _orphans(before)
    reaping(_SET_CHILD_SUBREAPER, 0)
    return {
        "suite": Path(suite).name,
        "kills": sum(kills.values()),
        "kills_by_verb": dict(sorted(kills.items())),
        "artefacts_finished_at_the_kill": dict(sorted(made.items(), key=lambda item: int(item[0]))),
        "processor_s_in_peace": {verb: round(seconds, 1) for verb, seconds in spent.items()},
        "reruns_compared": reruns,
        "compared_each": len(wanted),
        "rows": sum(key.startswith("row ") for key in wanted),
        "differing": sorted(differing),
        "unreadable_reports": unread,
        "partial_files": partial,
        "orphans": orphans,
        "is_equal": not (differing or unread or partial or orphans),
    }


def state(folder: Path) -> dict[str, Any]:
    """Return all of a finished folder that must not depend on interruptions, by name."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "engines").rglob("*.json")):
        sidecar = json.loads(path.read_text())
        found[f"sidecar {path.name}"] = {key: value for key, value in sidecar.items() if key not in _NOT_COMPARED}
    for path in sorted((folder / "calib").glob("*.json")):
        found[f"manifest {path.name}"] = path.read_text()
    for path in sorted(_store(folder).glob("*/*/artefact.json")):
        listing = json.loads(path.read_text())
        found[f"artefact {path.parent.parent.name}/{path.parent.name}"] = listing["files"]
    found["half made artefacts"] = [path.name for path in _store(folder).glob("*/*.partial")]
    if (latest := folder / "runs" / "latest" / "report.json").exists():
        for row in json.loads(latest.read_text())["rows"]:
            name = " ".join(str(row[key]) for key in ("variant", "precision", "backend", "batch_size"))
            same = ("status", "role", "params", "macs", "engine_bytes", "weight_bytes", "engine_sha256", "accuracy")
            found[f"row {name}"] = {key: row[key] for key in same}
    return found


def _store(folder: Path) -> Path:
    return folder / "runs" / ".store"


def _unread(folder: Path) -> int:
    """Count the reports that cannot be read; the link to the newest leads to one of them, or is not there."""
    from trtbench.errors import TrtbenchError
    from trtbench.report.document import read_report

    found, latest = 0, folder / "runs" / "latest"
    for path in [*folder.glob("runs/*/report.json"), *([latest / "report.json"] if latest.is_symlink() else [])]:
        try:
            read_report(path)
        except TrtbenchError:
            found += 1
    return found


def _kill(verb: str, suite: str, folder: Path, *, moment: float) -> bool:
    """Start a verb and kill it when it has taken so much processor time; say whether it had not ended before."""
    child = _fork(verb, suite, folder)
    while _spent_s(child) < moment:
        if _ended(child, os.WNOHANG):
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return not _ended(child, 0)


def _run(verb: str, suite: str, folder: Path) -> float:
    """Run a verb to its end and return the processor time it took."""
    before = os.times()
    child = _fork(verb, suite, folder)
    until = time.monotonic() + _LONGEST_S
    while not _ended(child, os.WNOHANG):
        time.sleep(0.01)
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            raise SystemExit(f"{verb} does not end")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _ended(child: int, options: int) -> bool:
    """Whether a child has ended well; one that was killed has not, and one that ended otherwise is told."""
    pid, status = os.waitpid(child, options)
    if pid == 0 or os.WIFSIGNALED(status):
        return False
    if code := os.WEXITSTATUS(status):
        raise SystemExit(f"a command ended with {code}; see words.log")
    return True


def _fork(verb: str, suite: str, folder: Path) -> int:
    """Start a verb in a child of this process."""
    if child := os.fork():
        return child
    code = 70
    with contextlib.suppress(BaseException):
        code = _command(verb, suite, folder)
    os._exit(code)


def _command(verb: str, suite: str, folder: Path) -> int:
    from trtbench.cli import main as command

    silence = os.open(os.devnull, os.O_RDWR)
    words = os.open(folder.parent / "words.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream, to in enumerate((silence, silence, words)):
        os.dup2(to, stream)
    folders = ["--out", str(folder / "runs"), "--engines", str(folder / "engines"), "--calib", str(folder / "calib")]
    sys.argv = ["trtbench", verb, suite, *folders, "--quiet"]
    try:
        command()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _spent_s(process: int) -> float:
    """Return the seconds of processor time of a process, what it waited for and what runs below it (proc(5))."""
    ticks = 0
    for one in _below(process):
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _below(process: int) -> Iterator[int]:
    """Yield a process and all that run below it."""
    yield process
    with contextlib.suppress(OSError):
        for tasks in Path(f"/proc/{process}/task").iterdir():
            for child in (tasks / "children").read_text(encoding="utf-8").split():
                yield from _below(int(child))


def _orphans(before: frozenset[int]) -> int:
    """Wait for what a killed command left running, and count and end what goes on; some ran before."""
    until = time.monotonic() + _ORPHAN_S
    while (left := _children(before)) and time.monotonic() < until:
        time.sleep(0.02)
    for child in left:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(left)


def _children(but: frozenset[int]) -> list[int]:
    """Return the children of this process that have not ended."""
    left = []
    for child in {*_below(os.getpid())} - but:
        with contextlib.suppress(ChildProcessError):  # a child of a child
            if os.waitpid(child, os.WNOHANG)[0] == 0:
                left.append(child)
    return left


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for module in ("torch", "onnxruntime", "matplotlib.figure", "trtbench.running", "trtbench.train"):
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)
    sys.exit(main())

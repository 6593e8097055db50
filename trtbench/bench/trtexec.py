"""The same engine timed by NVIDIA's `trtexec` and by us, under equal flags: where they differ, one of them is wrong.

Two figures are compared, without copies. Of the device: `trtexec` reads "GPU Compute Time" off CUDA events around each
enqueue with a second inference queued behind it, and so does our session when its clock is "events". And by the wall
clock, one inference at a time, launch and wake-up included: what a report's p50 is. Of that `trtexec` tells the mean:
the reciprocal of its throughput under `--exposeDMA`, which takes the second inference away.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbench.errors import CapabilityError, EngineError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from trtbench.engines.base import Session
    from trtbench.engines.sidecar import Sidecar

LIMIT = 0.05
_MIN_SAMPLES = 30
_BLOCK_SAMPLES = 10
_MIN_SAMPLE_NS = 1_000_000  # of a throughput sample: shorter ones are mostly the clock's own
_GRACE_S = 120.0  # to load an engine and to warm up
_SUMMARY = "=== Performance summary ==="
_QPS = re.compile(r"\bThroughput:\s*([\d.eE+-]+) qps")
_GPU_TIME = re.compile(r"\bGPU Compute Time:\s*(.+)")
_FIGURE = re.compile(r"(min|max|mean|median|percentile\((\d+)%\))\s*=\s*([\d.eE+-]+) ms")
_FAULT = re.compile(r"\[E\]\s*(.+)")
_TOLD_FAULTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What both sides are told.

    Args:
        batch: images of one inference.
        warm_up_ms: milliseconds of it.
        duration_s: seconds of timing, at least.
        cuda_graph: launch a captured graph instead of the kernels one by one.
        spin: let `trtexec` wait by polling, as CUDA does for us where there are cores enough.
    """

    batch: int = 1
    warm_up_ms: float = 200.0
    duration_s: float = 3.0
    cuda_graph: bool = True
    spin: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One side's figures: milliseconds of a batch on the device, and batches a second launched back to back.

    `alone_ms` are the mean milliseconds by the wall clock of a batch that has the device to itself.
    """

    median_ms: float
    p99_ms: float
    batches_per_s: float
    alone_ms: float | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """Both sides' figures of one engine.

    Args:
        ours: of trtbench.
        theirs: of `trtexec`.
        flags: what both were told.
        settings: what our session says was in force: whether a CUDA graph really ran.
        command: the `trtexec` line; with `--exposeDMA` it is that of the wall clock.
    """

    ours: Figures
    theirs: Figures
    flags: Flags
    settings: Mapping[str, Any]
    command: str

    @property
    def difference(self) -> float:
        """By how much our median on the device is above `trtexec`'s, as a share of it."""
        return self.ours.median_ms / self.theirs.median_ms - 1

    @property
    def alone_difference(self) -> float | None:
        """By how much our mean by the wall clock is above `trtexec`'s, as a share of it."""
        if self.ours.alone_ms is None or self.theirs.alone_ms is None:
            return None
        return self.ours.alone_ms / self.theirs.alone_ms - 1

    @property
    def is_close(self) -> bool:
        """Whether both figures agree to 5 %."""
        return all(abs(one) <= LIMIT for one in (self.difference, self.alone_difference) if one is not None)


def crosscheck(path: Path, sidecar: Sidecar, flags: Flags, *, executable: str = "trtexec") -> CrossCheck:
    """Time an engine, whose sidecar was checked, by both.

    Raises:
        CapabilityError: there is no `trtexec`.
        UnsupportedError: it is no TensorRT engine, or has no profile of this batch size.
        EngineError: one of the two cannot run it.
    """
    if sidecar.backend != "tensorrt":
        cure = "name an engine of backend tensorrt"
        raise UnsupportedError(f"crosscheck of a {sidecar.backend} engine", expected="a TensorRT plan", cure=cure)
    command = trtexec_command(find_trtexec(executable), path, sidecar, flags)
    from trtbench.engines.tensorrt.backend import TENSORRT

    asked = {"cuda_graph": flags.cuda_graph}
    with contextlib.closing(TENSORRT.open(path, sidecar, {**asked, "clock": "events"})) as engine:
        session = engine.session(flags.batch)
        ours = measure(session, flags)
        settings = session.describe().settings
    with contextlib.closing(TENSORRT.open(path, sidecar, {**asked, "clock": "wall"})) as engine:
        ours = replace(ours, alone_ms=measure_alone(engine.session(flags.batch), flags))
    # Closed before they begin, so that the other side has the GPU to itself.
    timeout_s = flags.duration_s + flags.warm_up_ms / 1000 + _GRACE_S
    theirs = parse_trtexec(run_trtexec(command, timeout_s=timeout_s))
    alone = parse_trtexec(run_trtexec([*command, "--exposeDMA"], timeout_s=timeout_s))
    theirs = replace(theirs, alone_ms=1000 / alone.batches_per_s)
    return CrossCheck(ours=ours, theirs=theirs, flags=flags, settings=settings, command=shlex.join(command))


def find_trtexec(executable: str) -> str:
    """Return the path of `trtexec`.

    Raises:
        CapabilityError: it is not on the PATH.
    """
    found = shutil.which(executable)
    if found is None:
        raise CapabilityError(
            executable,
            expected="on the PATH",
            got="nothing",
            cure="it comes with NVIDIA's TensorRT archives and containers (nvcr.io/nvidia/tensorrt), not with the "
            "wheels; add its folder to PATH, e.g. /usr/src/tensorrt/bin",
        )
    return found


def trtexec_command(executable: str, path: Path, sidecar: Sidecar, flags: Flags) -> list[str]:
    """Return the command line that times an engine as we do: device only, one stream.

    Raises:
        UnsupportedError: the engine has no profile for this batch size.
    """
    profiles = sidecar.facts.get("profiles", [])
    index = _profile_index(profiles, flags.batch)
    shapes = ",".join(
        f"{name}:{'x'.join(map(str, [flags.batch, *triple[1][1:]]))}" for name, triple in profiles[index].items()
    )
    tensors = sidecar.facts.get("tensors", [])
    is_free = any(-1 in tensor["shape"] for tensor in tensors if tensor["mode"] == "INPUT")
    return [
        executable,
        f"--loadEngine={path}",
        *([f"--useProfile={index}"] if len(profiles) > 1 else []),
        *([f"--shapes={shapes}"] if is_free else []),  # it refuses shapes for an input without a free axis
        f"--warmUp={flags.warm_up_ms:g}",
        f"--duration={flags.duration_s:g}",
        f"--iterations={_MIN_SAMPLES}",
        "--percentile=99",
        *_how(flags, major=_major(sidecar.backend_version)),
    ]


def _how(flags: Flags, *, major: int) -> list[str]:
    """Return how `trtexec` of a major version is told of copies, graphs and waits: TensorRT 11 turned its defaults."""
    if major >= 11:  # noqa: PLR2004  samples/common/sampleOptions.cpp of its source
        return [*([] if flags.cuda_graph else ["--noCudaGraph"]), *([] if flags.spin else ["--noSpinWait"])]
    return [
        "--noDataTransfers",
        *(["--useCudaGraph"] if flags.cuda_graph else []),
        *(["--useSpinWait"] if flags.spin else []),
    ]


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found.group()) if found else 0


def run_trtexec(command: list[str], *, timeout_s: float) -> str:
    """Run `trtexec` and return what it printed.

    Raises:
        EngineError: it failed, with its own error lines, or did not end in time.
    """
    what = f"`{shlex.join(command)}`"
    cure = "run it by hand; its TensorRT must be the one the engine was built with"
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(what, got=str(error), cure=cure) from error
    if run.returncode:
        faults = _FAULT.findall(run.stdout + run.stderr)[-_TOLD_FAULTS:]
        got = "; ".join(faults) or f"exit code {run.returncode}"
        raise EngineError(what, expected="exit code 0", got=got, cure=cure)
    return run.stdout


def parse_trtexec(text: str) -> Figures:
    """Read the performance summary that `trtexec` prints.

    Raises:
        EngineError: there is none, or it lacks a figure.
    """
    summary = text.partition(_SUMMARY)[2]
    qps, gpu_time = _QPS.search(summary), _GPU_TIME.search(summary)
    figures = {name: float(value) for name, _, value in _FIGURE.findall(gpu_time.group(1))} if gpu_time else {}
    if qps is None or not {"median", "percentile(99%)"} <= figures.keys():
        expected = "a performance summary with throughput and GPU compute time"
        got = text.strip()[-200:] or "nothing"
        raise EngineError("output of trtexec", expected=expected, got=got, cure="run it by hand and see")
    return Figures(median_ms=figures["median"], p99_ms=figures["percentile(99%)"], batches_per_s=float(qps.group(1)))


def measure(session: Session, flags: Flags) -> Figures:
    """Time a session as `trtexec` does: warm up, then single launches, then launches back to back."""
    _spend(session, flags.warm_up_ms * 1e6, launches=1)
    single = _spend(session, flags.duration_s * 1e9, launches=1)
    median = float(np.median(single))
    launches = max(1, int(np.ceil(_MIN_SAMPLE_NS / median)))
    several = _spend(session, flags.duration_s * 1e9 / 2, launches=launches)
    return Figures(
        median_ms=median / 1e6,
        p99_ms=float(np.percentile(single, 99)) / 1e6,
        batches_per_s=launches * 1e9 / float(np.median(several)),
        samples=len(single),
    )


def measure_alone(session: Session, flags: Flags) -> float:
    """Return the mean milliseconds of single launches, after a warm-up, by the clock of the session."""
    _spend(session, flags.warm_up_ms * 1e6, launches=1)
    return float(np.mean(_spend(session, flags.duration_s * 1e9, launches=1))) / 1e6


def _spend(session: Session, ns: float, *, launches: int) -> list[int]:
    """Return the samples taken in this time, and at least as many as a median needs."""
    samples: list[int] = []
    while len(samples) < _MIN_SAMPLES or sum(samples) < ns:
        found = session.time(_BLOCK_SAMPLES, launches_per_sample=launches, scope="device")
        samples += [int(one) for one in found]
    return samples


def _profile_index(profiles: list[dict[str, list[list[int]]]], batch: int) -> int:
    """Return the profile of a batch size: of those that take it the one tuned for the nearest, as our sessions do."""
    ranges = [next(iter(shapes.values())) for shapes in profiles]
    fitting = [
        (abs(usual[0] - batch), index) for index, (low, usual, high) in enumerate(ranges) if low[0] <= batch <= high[0]
    ]
    if not fitting:
        sizes = ", ".join(f"{low[0]}" if low == high else f"{low[0]} to {high[0]}" for low, _, high in ranges) or "none"
        raise UnsupportedError(
            f"batch {batch}", expected=f"one of the engine's: {sizes}", cure="name one with --batch-size"
        )
    return min(fitting)[1]

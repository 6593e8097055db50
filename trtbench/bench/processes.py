"""The parent's side of worker processes: start, command, and what a death means."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from trtbench import errors
from trtbench.disk import storing
from trtbench.errors import EngineError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

WORKER = "trtbench.bench.worker"
LIMIT_S = 600.0  # of a command that the plan says nothing of; of one that it does, at least
PATIENCE = 10  # a command may take that many times what the plan, or the first inference, says: machines are shared
_EMULATED_SLOWER = 20  # of a command without a plan: importing a runtime under QEMU
_LOOK_S = 1.0
_STOPPED_LOOKS = 10  # of a process that a signal has stopped
_SILENT_LOOKS, _SILENT_SHARE = 120, 0.1  # without any computing; at least, and of the limit: a load waits for requests
_SETTINGS = {"ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
_EMULATED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # it tells OpenBLAS of threads it cannot have


class WorkerProcess:
    """One engine in a process of its own.

    Args:
        name: how messages call it.
        log: where its standard error goes.
        module: what `python -m` runs; it serves the commands of `trtbench.bench.worker`.
        under: the command of an emulator that runs it, split into words.
        spin: whether threads of OpenMP wait by spinning, whatever the environment of this process says of its own.

    Raises:
        EngineError: there is no such emulator.
    """

    def __init__(
        self, name: str, *, log: Path, module: str = WORKER, under: Sequence[str] = (), spin: bool = False
    ) -> None:
        self.name = name
        self._slower = _EMULATED_SLOWER if under else 1
        self._log = log
        self._asking = threading.Lock()
        with storing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            stderr = log.open("ab")
        policy = "ACTIVE" if spin else "PASSIVE"
        with stderr, _started(under):
            self._process = subprocess.Popen(
                [*under, sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **_SETTINGS, "OMP_WAIT_POLICY": policy, **(_EMULATED if under else {})},
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )

    def ask(self, do: str, *, limit_s: float = LIMIT_S, **arguments: Any) -> dict[str, Any]:
        """Send one command and return its answer, for which it has that many seconds while it computes.

        Raises:
            WorkerError: the process died or went silent; its last words are in the message.
            EngineError: the worker answered with an error of the tree, raised here as the same class.
        """
        stdin, stdout = self._pipes()
        try:
            with self._asking:
                stdin.write(json.dumps({"do": do, **arguments}) + "\n")
                stdin.flush()
                _wait(self._process, limit_s=limit_s * self._slower)
                answer = stdout.readline()
        except BrokenPipeError as error:  # it ended before it read: how it ended says more than that it did
            raise self._died(do, "") from error
        except (TimeoutError, ValueError) as error:  # ValueError: killed and closed meanwhile
            raise self._died(do, str(error)) from error
        if not answer.endswith("\n"):  # the end of the pipe, perhaps in the middle of an answer
            raise self._died(do, "")
        found: dict[str, Any] = json.loads(answer)
        if "error" in found:
            raise getattr(errors, found["error"], EngineError)(found["reason"])
        return found

    def close(self) -> None:
        """End the process: kindly, then by force."""
        with contextlib.suppress(WorkerError, EngineError):
            self.ask("close")
        stdin, stdout = self._pipes()
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        stdout.close()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        with self._asking:  # a thread that waits for an answer sees the end of the pipe first, and must not lose it
            for pipe in self._pipes():
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _died(self, do: str, reason: str) -> WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        words = next((line.strip() for line in reversed(lines) if line.strip()), "no last words")
        code = self._process.poll()
        state = reason or (f"exit code {code}" if code is not None else "no answer")
        return WorkerError(f"worker of {self.name} during {do!r}", got=f"{state} ({words})", cure=f"see {self._log}")


class Workers:
    """All worker processes of a run; leaving the context ends them.

    Args:
        module: what each of them runs.
        under: the emulator that runs them.
        spin: as for one.
    """

    def __init__(self, *, module: str = WORKER, under: Sequence[str] = (), spin: bool = False) -> None:
        self._module = module
        self._under = under
        self._spin = spin
        self._alive: dict[str, WorkerProcess] = {}
        self._lock = threading.Lock()  # workers are started from several threads
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            self._is_over = True
            leaving = list(self._alive.values())
            self._alive.clear()
        for worker in leaving:
            if kind is None:
                worker.close()
            else:
                worker.kill()

    def start(self, name: str, *, log: Path, preparing: Mapping[str, Any]) -> WorkerProcess:
        """Start the worker called `name` and let it prepare; a worker that crashes is started once more.

        Raises:
            WorkerError: it crashed twice.
            EngineError: its engine is not what its sidecar says, or there is no such emulator.
        """
        for is_last in (False, True):
            with self._lock:
                if self._is_over:
                    raise WorkerError(f"worker of {name}", got="the run is over")
                worker = self._alive[name] = WorkerProcess(
                    name, log=log, module=self._module, under=self._under, spin=self._spin
                )
            try:
                worker.ask("prepare", **preparing)
            except EngineError as error:
                self.drop(name)
                if is_last or not isinstance(error, WorkerError):
                    raise
            else:
                return worker
        raise AssertionError("the loop returns or raises")

    def alive(self, name: str) -> WorkerProcess | None:
        """Return the worker called `name`, or None if it was never started or was dropped."""
        return self._alive.get(name)

    def drop(self, name: str) -> None:
        """Kill a worker that failed."""
        with self._lock:
            worker = self._alive.pop(name, None)
        if worker is not None:
            worker.kill()


@contextlib.contextmanager
def _started(under: Sequence[str]) -> Iterator[None]:
    """Say of an emulator that cannot be run how to get it."""
    try:
        yield
    except OSError as error:
        if not under:
            raise
        raise EngineError(
            f"emulator {under[0]!r}",
            expected="a program that can be run",
            got=error.strerror or str(error),
            cure="install it, for example Debian's qemu-user-static, or leave out --under",
        ) from error


@contextlib.contextmanager
def mapped(images: NDArray[Any], folder: Path) -> Iterator[Path]:
    """Keep images in a file, which worker processes map, for as long as they are needed; below a folder with room.

    Raises:
        StoreError: the folder cannot hold them.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        kept = tempfile.TemporaryDirectory(dir=folder, prefix=".images-", ignore_cleanup_errors=True)
    with kept as place:
        path = Path(place) / "test.npy"
        with storing(path):
            np.save(path, images)
        yield path


def _wait(process: subprocess.Popen[str], *, limit_s: float) -> None:
    """Wait until a process answers or ends, for as long as it computes; else TimeoutError.

    What is counted are looks at it, so that a parent that was stopped itself does not take that for its worker's
    silence. Looking costs the worker nothing: the system keeps its state and the processor time it took.
    """
    state, spent, still = "", -1, 0
    with selectors.DefaultSelector() as selector:
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        for look in itertools.count(1):
            if selector.select(timeout=_LOOK_S):
                return
            before = (state, spent)
            state, spent = _pulse(process.pid)
            still = still + 1 if spent >= 0 and before == (state, spent) else 0
            if state == "T" and still >= _STOPPED_LOOKS:
                raise TimeoutError("a process that a signal has stopped")
            if still >= max(_SILENT_LOOKS, _SILENT_SHARE * limit_s / _LOOK_S):
                raise TimeoutError(f"no answer, and no computing, for {still * _LOOK_S:.0f} s")
            if look * _LOOK_S >= limit_s:
                raise TimeoutError(f"no answer within {limit_s:.0f} s")


def _pulse(pid: int) -> tuple[str, int]:
    """Return the state of a process and the ticks of processor time it took (proc(5), stat); ("", -1) if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "", -1
    return fields[0], int(fields[11]) + int(fields[12])


def patient_limit_s(expected_s: float) -> float:
    """Return what a worker may take for what is expected to take so long."""
    return max(LIMIT_S, PATIENCE * expected_s)


def scoring_limit_s(first_inference_ms: float, batches: int) -> float:
    """Return what a worker may take to score so many batches, by what its first took."""
    return patient_limit_s(batches * first_inference_ms / 1e3)


def cores(threads: int) -> list[int]:
    """Return the cores a timed worker is bound to: the last ones, the first being where the system is busiest."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[-threads:]

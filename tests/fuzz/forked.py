"""Command lines run each in a forked child of a process that has imported all: a case costs milliseconds."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU_S = 20
BYTES = 2 * 10**9
_WALL_S = 150.0  # on a machine that has other work too
_IDLE_S = 15.0  # of waiting in which nothing is computed
_ROOM = 6 * 10**9  # of addresses beyond those of a fresh child, so that a case does not take the machine with it
_SENTENCES = {2, 3, 4, 5, 6}  # the exit codes of trtbench.errors
_TAIL = 2000
_IMPORTED = ("torch", "onnx", "onnxruntime", "sklearn.datasets", "trtbench.cli.main", "trtbench.running.run")
_ALSO = ("trtbench.steps", "trtbench.shipping.ship", "trtbench.report.disk", "trtbench.report.html", "rich.table")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command line ended: its exit code, below 0 a signal; None where it had to be stopped."""

    code: int | None
    cpu_s: float
    bytes: int
    told: str

    @property
    def faults(self) -> tuple[str, ...]:
        """What must not be, by kind; none where it ended in a result or a sentence."""
        found = {
            "traceback": "Traceback (most recent call last)" in self.told,
            "exit 1": self.code == 1,
            "exit 70": self.code == 70,
            "signal": self.code is not None and self.code < 0,
            "over 20 s": self.code is None or self.cpu_s > CPU_S,
            "over 2 GB": self.bytes > BYTES,
            "no sentence": self.code in _SENTENCES and "rror" not in self.told and "failed" not in self.told,
            "another code": self.code not in {None, 0, 1, 70, *_SENTENCES} and (self.code or 0) > 0,
        }
        return tuple(kind for kind, is_so in found.items() if is_so)


class Server:
    """A process that has imported the package and forks a child for each command line."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1", "COLUMNS": "200"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, argv: Sequence[str], *, folder: Path) -> Outcome:
        """Run a command line in a folder."""
        return Outcome(**self._asked(argv=list(argv), folder=str(folder)))

    def prepare(self, folder: Path) -> None:
        """Let `tests.fuzz.valid` write the files that cases start from."""
        self._asked(prepare=str(folder))

    def _asked(self, **command: Any) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()
        found: dict[str, Any] = json.loads(stdout.readline())
        return found


def _serve(commands: IO[str], answers: IO[str]) -> None:
    for name in (*_IMPORTED, *_ALSO):
        importlib.import_module(name)
    for line in commands:
        command = json.loads(line)
        if "prepare" in command:
            from tests.fuzz.valid import write_all

            write_all(Path(command["prepare"]))
            answer: dict[str, Any] = {}
        else:
            answer = _forked(command["argv"], Path(command["folder"]))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _forked(argv: list[str], folder: Path) -> dict[str, Any]:
    told = folder.parent / f"{folder.name}.told"
    child = os.fork()
    if not child:
        _run(argv, folder, told)
    begun = since = time.monotonic()
    used_s, pause = 0.0, 0.001
    while not (found := os.wait4(child, os.WNOHANG))[0]:
        now = time.monotonic()
        if now - begun > 1 and (taken := _cpu_s(child)) > used_s:
            used_s, since = taken, now
        if now - begun > _WALL_S or now - since > _IDLE_S:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            found = os.wait4(child, 0)
            break
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)
    _, status, used = found
    code = os.waitstatus_to_exitcode(status)
    text = told.read_text(encoding="utf-8", errors="replace") if told.exists() else ""
    told.unlink(missing_ok=True)
    return {
        "code": None if code == -signal.SIGKILL else code,
        "cpu_s": used.ru_utime + used.ru_stime,
        "bytes": used.ru_maxrss * 1024,
        "told": text[-_TAIL:],
    }


def _cpu_s(session: int) -> float:
    """Return what the living processes of a session have computed."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:13])) if int(fields[3]) == session else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _run(argv: list[str], folder: Path, told: Path) -> None:
    """Become `trtbench ARGV...`, its words in a file; the process ends here, whatever happens."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        out = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S + 1, CPU_S + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM,) * 2)
        sys.argv = ["trtbench", *argv]
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(one, mode) for one, mode in ((0, "r"), (1, "w"), (2, "w")))
        from trtbench.cli.main import main

        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:  # noqa: BLE001  as the interpreter does at its end
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    _serve(sys.stdin, _answers)

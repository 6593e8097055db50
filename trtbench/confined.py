"""A process with a limit of memory and of time, in which foreign graphs are parsed, folded and run.

Native parsers end by SIGSEGV or SIGFPE where a file is hostile, and a small graph may fold to terabytes or never end:
there it ends this process alone, and the caller is told in a sentence.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from trtbench import errors
from trtbench.errors import ConfigError, TrtbenchError
from trtbench.foreign import FAULTS, MISFITS

_BASE_BYTES, _BYTES_PER_BYTE = 10**9, 8  # beyond what the process takes empty; of its input: copies and their folding
_BASE_S, _BYTES_PER_S = 10, 2 * 10**6  # of CPU time; a second more for each 2 MB of input
_STATM = Path("/proc/self/statm")
_WALL = 10  # times the limit of CPU time, of a process that waits
_SETTINGS = {
    "MALLOC_ARENA_MAX": "2",  # each takes 64 MB of addresses
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONFAULTHANDLER": "",
}


def confined(place: str, path: Path, **arguments: Any) -> Any:
    """Call a function on a foreign file in a process of its own.

    Args:
        place: module:NAME of a function of ours that takes a path and JSON values, and returns a JSON value.
        path: its first argument.
        arguments: its others.

    Raises:
        TrtbenchError: as the function raised it.
        AssertionError: the function has a fault of its own.
        ConfigError: it took more memory or time than the file's size explains, or its native code crashed.
    """
    size = path.stat().st_size if path.is_file() else 0
    limits = {"memory_bytes": _BASE_BYTES + _BYTES_PER_BYTE * size, "cpu_s": _BASE_S + size // _BYTES_PER_S}
    asked = {"place": place, "path": str(path), "arguments": arguments, **limits}
    process = subprocess.Popen(
        [sys.executable, "-m", "trtbench.confined"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **_SETTINGS},
    )
    try:
        told, _ = process.communicate(json.dumps(asked), timeout=_WALL * limits["cpu_s"])
    except subprocess.TimeoutExpired:
        told = ""
    finally:
        process.kill()
        process.communicate()
    if not told.endswith("\n"):
        raise _ended(path, process.returncode, **limits)
    answer: dict[str, Any] = json.loads(told)
    if "unforeseen" in answer:
        raise AssertionError(answer["unforeseen"])
    if "error" in answer:
        kind = getattr(errors, answer["error"], ConfigError)
        raise kind(answer["what"], expected=answer["expected"], got=answer["got"], cure=answer["cure"])
    return answer["value"]


def _ended(path: Path, code: int, *, memory_bytes: int, cpu_s: int) -> ConfigError:
    by = -code
    if by in {signal.SIGXCPU, signal.SIGKILL}:
        got = f"one that still computed after {cpu_s} s"
    elif code == _NO_MEMORY:
        got = "one that takes more"
    else:
        got = f"one on which native code crashed ({signal.Signals(by).name})" if by > 0 else f"exit code {code}"
    expected = f"a file that is read within {cpu_s} s and {memory_bytes / 1e9:.1f} GB"
    return ConfigError(f"file {path}", expected=expected, got=got, cure="export it again, its constants folded")


_NO_MEMORY = errno.ENOMEM


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    module, _, name = asked["place"].partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        _confine(asked["memory_bytes"], asked["cpu_s"])
        return {"value": function(Path(asked["path"]), **asked["arguments"])}
    except TrtbenchError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from error
        four = {"what": error.what, "expected": error.expected, "got": error.got, "cure": error.cure}
        return {"error": type(error).__name__, **four}
    except MemoryError:
        raise
    except (*FAULTS, *MISFITS) as error:  # all that is computed here is computed from a foreign file
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        four = {"what": f"file {asked['path']}", "expected": "a graph that makes sense", "got": got, "cure": ""}
        return {"error": "ConfigError", **four}
    except Exception:  # noqa: BLE001  raised again where it was asked
        return {"unforeseen": traceback.format_exc()}


def _confine(memory_bytes: int, cpu_s: int) -> None:
    """Let this process take so much more than now; of memory on Linux alone, where it is told what is taken."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + cpu_s
    limits = {resource.RLIMIT_CPU: seconds}
    if _STATM.exists():
        pages = int(_STATM.read_text(encoding="ascii").split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory_bytes
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, hard))


def _main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native code prints is no answer
    try:
        answer = json.dumps(_answer(json.load(sys.stdin)))
    except MemoryError:
        return _NO_MEMORY
    told.write(f"{answer}\n")
    told.flush()
    return 0


if __name__ == "__main__":
    os._exit(_main())  # threads of a runtime that ran out of memory do not end

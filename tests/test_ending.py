"""A signal is heeded once, and waits while what was measured is written; a process ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trtbench.ending import SIGNALS, Stopped, heed_signals, unstoppable

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_raises_once_and_more_of_them_do_not_cut_the_cleaning_up_short(number: int, code: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    heed_signals()

    with pytest.raises(Stopped) as stopped:
        _send(number)
    _send(signal.SIGINT)
    _send(signal.SIGTERM)

    assert stopped.value.exit_code == code


def test_a_signal_that_was_swallowed_does_not_make_the_process_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    heed_signals()
    with pytest.raises(Stopped):
        _send(signal.SIGTERM)
    monkeypatch.setattr("trtbench.ending._HEEDING_S", 0.0)

    with pytest.raises(Stopped):
        _send(signal.SIGTERM)


def test_a_signal_that_a_process_was_started_to_ignore_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heed_signals()

    _send(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_signal_waits_until_what_was_measured_is_written() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a notebook
    written = []

    def write() -> None:
        with unstoppable():
            _send(signal.SIGINT)
            _send(signal.SIGINT)
            written.append("the report")

    with pytest.raises(Stopped):
        write()

    assert written
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_ends_with_its_parent_in_the_middle_of_a_native_call() -> None:
    script = "import sys, time; from trtbench.ending import commands; print(next(commands(sys.stdin))); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("work\n")
    child.stdin.flush()
    assert child.stdout.readline() == "work\n"

    child.stdin.close()  # as the death of a parent does

    assert child.wait(timeout=30) == 0
    child.stdout.close()


def test_the_first_process_of_a_container_ends_by_sigterm() -> None:
    """Such a process has no default: what it does not handle does not reach it (pid_namespaces(7))."""
    script = (
        "import os, sys, time; from trtbench.ending import Stopped, heed_signals; heed_signals()\n"
        "try: print(os.getpid(), flush=True); time.sleep(60)\n"
        "except Stopped as stopped: sys.exit(stopped.exit_code)"
    )
    command = ["/usr/bin/unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as container:
        assert container.stdout is not None
        assert container.stderr is not None
        if not (told := container.stdout.readline()):
            pytest.skip(f"no namespace of processes here: {container.stderr.read().strip()}")
        (first,) = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
        assert int(told) == 1
        os.kill(int(first), signal.SIGTERM)

        assert container.wait(timeout=30) == 143

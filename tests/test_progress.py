"""What long work tells of itself is summed by stage."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import pytest

from trtbench.errors import ConfigError
from trtbench.progress import LEVEL, Event, Stages, logged, nobody

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path


def test_a_stage_takes_what_its_items_took_each_counted_once() -> None:
    told: list[Event] = []
    stages = Stages(told.append)
    events = [
        Event(stage="graph", item="a", state="cached", seconds=2.0),
        Event(stage="graph", item="a", state="cached", seconds=2.0),
        Event(stage="graph", item="b", state="done", seconds=1.0),
        Event(stage="time", item="batch 1", state="progress", share=0.5),
    ]

    for event in events:
        stages(event)

    assert stages.seconds == {"graph": 3.0}
    assert told == events


def test_a_log_has_what_libraries_say_and_what_workers_wrote_and_no_password(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "dense_fp32.log").write_text("a kernel\nis missing\n")
    told: list[Event] = []
    with logged(tmp_path, argv=("trtbench", "run"), tell=told.append) as listener, warnings.catch_warnings():
        warnings.simplefilter("always")
        listener(Event(stage="time", item="batch 1", state="progress"))
        listener(Event(stage="time", item="batch 1", state="failed", detail="of https://me:secret@host/x"))
        logging.getLogger("somebody.else").warning("token=%s is %s", "abc", "refused")
        warnings.warn("this is old", stacklevel=1)
    logging.getLogger("somebody.else").warning("too late")
    lines = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()

    assert len(told) == 2
    assert [line.split(" ", 2)[2].split(": ", 1)[1] for line in lines[1:3]] == [
        "failed time batch 1 of https://***@host/x",
        "token=*** is refused",
    ]
    assert "py.warnings" in lines[3]
    assert lines[3].endswith("UserWarning: this is old")
    assert [line.rpartition("worker ")[2] for line in lines[-2:]] == [
        "dense_fp32: a kernel",
        "dense_fp32: is missing",
    ]


def _fail(folder: Path, error: Exception, *, keeps: bool = False) -> None:
    with logged(folder, argv=("trtbench", "run"), tell=nobody):
        if keeps:
            (folder / "report.json").touch()
        raise error


def test_a_log_ends_with_what_ended_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        _fail(tmp_path, ConfigError("device"))
    assert list(tmp_path.iterdir()) == []  # nothing was begun

    with pytest.raises(ConfigError):
        _fail(tmp_path, ConfigError("device"), keeps=True)
    with pytest.raises(ZeroDivisionError):
        _fail(tmp_path, ZeroDivisionError("by zero"))

    told = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "ended by ConfigError: device" in told
    assert told.count("Traceback") == 1
    assert told.rstrip().endswith("ZeroDivisionError: by zero")


def test_a_disk_that_is_full_ends_the_log_and_not_the_run(
    tmp_path: Path, files_of_at_most: Callable[[int], AbstractContextManager[None]], capsys: pytest.CaptureFixture[str]
) -> None:
    with files_of_at_most(64), logged(tmp_path, argv=("trtbench", "run"), tell=nobody) as listener:
        listener(Event(stage="time", item="batch 1", state="done"))
    with logged(tmp_path / "nowhere", argv=("trtbench", "run"), tell=nobody) as listener:
        listener(Event(stage="time", item="batch 1", state="done"))

    assert (tmp_path / "run.log").stat().st_size <= 64
    assert capsys.readouterr().err == ""


def test_no_less_is_logged_than_was_asked_for(tmp_path: Path) -> None:
    level = LEVEL.set(logging.ERROR)
    with logged(tmp_path, argv=("trtbench", "run"), tell=nobody) as listener:
        listener(Event(stage="time", item="batch 1", state="done"))
    LEVEL.reset(level)

    assert list(tmp_path.iterdir()) == []

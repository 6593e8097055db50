"""Nested phases become one share that never falls; a listener that fails stops the build and is not forgotten."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtbench.engines.tensorrt.builder import BuildWatch


def test_the_share_of_a_phase_within_a_phase_counts_within_one_step() -> None:
    phases = BuildWatch(None)
    phases.start("build", parent=None, steps=4)
    phases.step("build", 0)
    phases.start("tactics", parent="build", steps=2)

    phases.step("tactics", 0)

    assert phases.share == pytest.approx((1 + 0.5) / 4)


def test_the_share_does_not_fall_when_an_inner_phase_ends_before_its_step_is_told() -> None:
    phases = BuildWatch(None)
    phases.start("build", parent=None, steps=2)
    phases.start("inner", parent="build", steps=1)
    phases.step("inner", 0)
    before = phases.share
    phases.finish("inner")

    assert phases.share == before == 0.5


def test_a_new_outermost_phase_begins_at_nothing() -> None:
    phases = BuildWatch(None)
    phases.start("first", parent=None, steps=1)
    phases.step("first", 0)
    assert phases.share == 1.0
    phases.finish("first")
    phases.start("second", parent=None, steps=10)

    assert phases.share == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 5)), max_size=40))
def test_whatever_is_told_the_share_stays_between_nothing_and_all_and_never_falls(steps: list[tuple[str, int]]) -> None:
    phases = BuildWatch(None)
    phases.start("root", parent=None, steps=5)
    shares = [phases.share]
    for name, step in steps:
        if step < 0:
            phases.start(name, parent="root", steps=3)
        elif step == 5:
            phases.finish(name)
        else:
            phases.step(name, step)
        shares.append(phases.share)

    assert all(0 <= share <= 1 for share in shares)
    assert shares == sorted(shares)


def test_progress_is_told_by_phase_and_share() -> None:
    told: list[tuple[str, float]] = []
    watch = BuildWatch(lambda phase, share: told.append((phase, share)))

    watch.start("build", None, 2)
    may_go_on = watch.step("build", 0)
    watch.finish("build")

    assert may_go_on
    assert told == [("build", 0.0), ("build", 0.5)]


def test_a_build_whose_last_step_is_never_told_ends_at_all_of_it() -> None:
    told: list[tuple[str, float]] = []
    watch = BuildWatch(lambda phase, share: told.append((phase, share)))

    watch.start("Building engine", None, 6)
    for step in range(5):
        watch.step("Building engine", step)
    watch.finish("Building engine")
    watch.complete()

    assert told[-2:] == [("Building engine", 5 / 6), ("Building engine", 1.0)]


def test_a_cancelled_build_is_stopped_at_its_next_step() -> None:
    watch = BuildWatch(None)
    watch.start("build", None, 2)
    watch.cancel()

    assert not watch.step("build", 0)
    assert watch.is_cancelled


def test_a_listener_that_fails_stops_the_build_and_its_first_error_is_kept() -> None:
    first = RuntimeError("the screen is gone")
    errors = iter([first, RuntimeError("again")])

    def fail(_phase: str, _share: float) -> None:
        raise next(errors)

    watch = BuildWatch(fail)
    watch.start("build", None, 2)

    assert not watch.step("build", 0)
    assert watch.error is first


def test_steps_told_by_several_threads_are_all_counted() -> None:
    told: list[float] = []
    watch = BuildWatch(lambda _phase, share: told.append(share))
    watch.start("build", None, 400)
    threads = [
        threading.Thread(target=lambda start=start: [watch.step("build", step) for step in range(start, 400, 4)])
        for start in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(told) == 401
    assert max(told) == 1.0
    assert told == sorted(told)

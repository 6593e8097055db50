"""Loads: requests in flight, requests that are due, and the highest rate that keeps a limit."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trtbench.bench.load import (
    highest_that_holds,
    load_record,
    measure_load,
    poisson_arrivals,
    serve_arrivals,
    serve_streams,
)
from trtbench.bench.processes import Workers
from trtbench.engines.base import place_of
from trtbench.errors import ConfigError, DeviceError
from trtbench.suite import LoadConfig, options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.bench.records import EngineFile, Images
    from trtbench.rows import LoadRecord


@dataclass
class _Sleeper:
    """Takes `ms` for an inference without the processor."""

    ms: float
    launched: int = 0

    def enqueue(self) -> None:
        self.launched += 1

    def synchronize(self) -> None:
        time.sleep(self.ms / 1000)


def test_streams_keep_one_request_in_flight_each() -> None:
    sessions = [_Sleeper(5), _Sleeper(5)]

    found = serve_streams(sessions, duration_s=0.2)

    assert len(found.latencies_ns) == sum(session.launched for session in sessions)
    assert len(found.latencies_ns) > 1.3 * 0.2 / 0.005 * 0.5
    assert found.latencies_ns.min() >= 5e6
    assert found.elapsed_ns >= 0.2e9


class _Failing(_Sleeper):
    """Fails at its third inference."""

    def synchronize(self) -> None:
        super().synchronize()
        if self.launched == 3:
            raise DeviceError("CUDA device 0", got="operation not permitted when stream is capturing")


def test_what_one_of_several_streams_raises_is_raised_and_no_figure_is_told() -> None:
    sessions = [_Sleeper(1), _Failing(1), _Sleeper(1)]

    with pytest.raises(DeviceError, match="not permitted"):
        serve_streams(sessions, duration_s=0.02)
    with pytest.raises(DeviceError, match="not permitted"):
        serve_arrivals([_Failing(1), _Sleeper(1)], np.zeros(30, dtype=np.int64))


def test_a_request_that_waits_in_the_queue_is_as_late_as_the_queue_is_long() -> None:
    due = np.zeros(5, dtype=np.int64)  # five at once, one server of 10 ms

    found = serve_arrivals([_Sleeper(10)], due)

    assert (np.sort(found.latencies_ns) == found.latencies_ns).all()
    assert found.latencies_ns[4] >= 50e6
    assert found.latencies_ns[0] < 40e6


def test_a_request_is_served_no_sooner_than_it_is_due() -> None:
    found = serve_arrivals([_Sleeper(1)], np.array([0, 30_000_000]))

    assert found.elapsed_ns >= 31e6
    assert found.latencies_ns.min() >= 1e6


def test_arrivals_come_at_their_rate_with_exponential_gaps() -> None:
    due = poisson_arrivals(rate=1000.0, duration_s=20.0, seed=0)
    gaps = np.diff(due) / 1e9

    assert len(due) == 20_000
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(1e-3, rel=0.03)  # the deviation of an exponential is its mean
    assert len(poisson_arrivals(rate=0.1, duration_s=1.0, seed=0)) == 1


def _answer(*latencies_ms: float, elapsed_s: float = 1.0) -> dict[str, Any]:
    return {"ns": [round(one * 1e6) for one in latencies_ms], "elapsed_ns": elapsed_s * 1e9}


def test_a_load_is_told_in_images_and_its_limit_is_judged() -> None:
    limited = LoadConfig(scenario="arrivals", rate=4.0, p99_ms=3.5)

    found = load_record(_answer(1, 2, 3, 4), limited, batch_size=8, rate=4.0)

    assert (found.throughput_ips, found.p50_ms, found.max_ms, found.n) == (32.0, 2.5, 4.0, 4)
    assert (found.p99_ms, found.holds) == (None, False)  # too few to tell p99, but one of four is beyond the limit
    assert load_record(_answer(1, 2, 3, 3.4), limited, batch_size=8, rate=4.0).holds is True
    assert load_record(_answer(1, 2, 3, 3.4, elapsed_s=2.0), limited, batch_size=8, rate=4.0).holds is False  # too slow
    assert load_record(_answer(1, 2), LoadConfig(), batch_size=1, rate=None).holds is None
    assert load_record(_answer(*[1.0] * 1000), LoadConfig(), batch_size=1, rate=None).p99_ms == 1.0


def test_the_highest_rate_that_holds_is_found_by_bisection() -> None:
    plain = load_record(_answer(1, 2), LoadConfig(), batch_size=1, rate=None)
    tried: list[float] = []

    def at(rate: float) -> LoadRecord:
        tried.append(rate)
        return replace(plain, rate=rate, holds=rate <= 70)

    found = highest_that_holds(at, most=100.0)
    hopeless = highest_that_holds(lambda rate: replace(plain, rate=rate, holds=False), most=64.0)

    assert found.rate is not None
    assert 68 < found.rate <= 70
    assert len(tried) == 6
    assert (hopeless.rate, hopeless.holds) == (1.0, False)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (LoadConfig(streams=2, duration=0.05), ("streams", 2)),
        (LoadConfig(scenario="arrivals", rate=100.0, duration=0.05), ("arrivals", 1)),
        (LoadConfig(scenario="arrivals", p99_ms=1000.0, duration=0.02), ("arrivals", 1)),
    ],
)
def test_a_worker_bears_each_load(
    load: LoadConfig,
    expected: tuple[str, int],
    fake_engine: Callable[..., EngineFile],
    images: Images,
    tmp_path: Path,
) -> None:
    engine = fake_engine("e")
    preparing = {"backend": place_of("fake"), "engine": str(engine.path), "images": str(images.path)}
    with Workers() as workers:
        worker = workers.start("e", log=tmp_path / "e.log", preparing=preparing)
        worker.ask("open", settings={"threads": 1})

        found = measure_load(worker, load, batch_size=2, threads=1)

    assert (found.scenario, found.streams) == expected
    assert found.n >= 1
    assert found.throughput_ips > 0


@pytest.mark.parametrize(
    "values", [{"scenario": "arrivals"}, {"scenario": "streams", "rate": 5.0}, {"scenario": "streams", "streams": 0}]
)
def test_a_load_that_cannot_be_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        options(LoadConfig, **values)

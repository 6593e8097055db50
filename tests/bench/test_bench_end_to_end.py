"""From the bytes of image files to logits: the same logits as from pixels, and the time of all that lies between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.worker import Worker, encoded, infer, time_end_to_end
from trtbench.data.preprocess import normalise
from trtbench.records import Preprocessing

if TYPE_CHECKING:
    import pytest

_FIT = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), size=8)


class _Session:
    """A session whose logits are the sums of the input's channels; it counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.images: Any = np.zeros(0)

    def copy_in(self, images: np.ndarray) -> None:
        self.asked.append("in")
        self.images = images.copy()

    def enqueue(self) -> None:
        self.asked.append("run")

    def synchronize(self) -> None:
        self.asked.append("wait")

    def copy_out(self) -> Any:
        self.asked.append("out")
        return self.images.sum(axis=(2, 3))

    def time(self, samples: int, *, launches_per_sample: int, scope: str) -> np.ndarray:
        self.asked.append(f"{scope} {samples} x {launches_per_sample}")
        return np.full(samples, 1)


def _images(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)


def test_files_give_the_logits_that_pixels_give() -> None:
    images, session = _images(3), _Session()

    logits = infer(session, encoded(images), _FIT)  # type: ignore[arg-type]  # as much of a session as it asks for

    np.testing.assert_array_equal(session.images, normalise(images, _FIT))
    np.testing.assert_array_equal(logits, normalise(images, _FIT).sum(axis=(2, 3)))


def test_a_sample_holds_every_step_of_each_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    session, clock = _Session(), iter(range(0, 10_000, 7))
    monkeypatch.setattr("time.perf_counter_ns", lambda: next(clock))

    found = time_end_to_end(session, encoded(_images(2)), _FIT, 3, launches=2)  # type: ignore[arg-type]

    assert found.tolist() == [7, 7, 7]
    assert session.asked == ["in", "run", "wait", "out"] * 6


def test_a_worker_times_files_where_it_is_asked_to_and_else_leaves_it_to_the_session() -> None:
    worker, session = Worker(), _Session()
    worker._engine = object()  # type: ignore[assignment]  # nothing but its session is asked
    worker._images, worker._sessions = _images(3), {4: session}  # type: ignore[dict-item]
    worker._sidecar = type("Sidecar", (), {"preprocessing": _FIT})()

    found = worker._timer(4, "end-to-end", launches=1)(2)

    assert (found > 0).all()
    assert session.images.shape == (4, 3, 8, 8)
    np.testing.assert_array_equal(session.images[3], session.images[0])
    worker._timer(4, "host-to-host", launches=2)(5)
    assert session.asked[-1] == "host-to-host 5 x 2"

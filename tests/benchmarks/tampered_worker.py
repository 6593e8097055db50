"""A worker as trtbench's, that can time a bare loop beside its own, and spin after each inference of an engine.

`time` takes scope "bare" for a plain loop over `InferenceSession.run_with_iobinding`; the setting `spin_ns` plants a
slow-down of so many nanoseconds in every inference.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.worker import Worker, own_output, serve
from trtbench.ending import commands

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trtbench.engines.onnxruntime.cpu import OnnxRuntimeSession


def _bare(session: OnnxRuntimeSession, samples: int) -> NDArray[np.int64]:
    """Time the loop that anybody would write."""
    inference, binding = session._session, session._binding
    durations = []
    for _ in range(samples):
        start = time.perf_counter_ns()
        inference.run_with_iobinding(binding)
        durations.append(time.perf_counter_ns() - start)
    return np.array(durations, dtype=np.int64)


def _slowed(session: OnnxRuntimeSession, samples: int, spin_ns: int) -> NDArray[np.int64]:
    """Time inferences that each spin a while before they end."""
    durations = []
    for _ in range(samples):
        start = time.perf_counter_ns()
        session.enqueue()
        ran = time.perf_counter_ns()
        while time.perf_counter_ns() - ran < spin_ns:
            pass
        durations.append(time.perf_counter_ns() - start)
    return np.array(durations, dtype=np.int64)


_NO_MEMORY = {"device_memory_bytes": None, "host_memory_bytes": None}


class TamperedWorker(Worker):
    """One open engine, honest unless it is told otherwise."""

    _spin_ns = 0

    def open(self, *, settings: dict[str, Any], batch: int = 1) -> dict[str, Any]:
        """Load the engine; remember the planted slow-down."""
        self._spin_ns = settings.pop("spin_ns", 0)
        return super().open(settings=settings, batch=batch)

    def time(self, *, batch: int, samples: int, scope: Any, launches: int = 1) -> dict[str, Any]:
        """Time as trtbench does, in a bare loop, or with the planted slow-down."""
        session: Any = self._session(batch)
        if scope == "bare":
            return {"ns": _bare(session, samples).tolist(), **_NO_MEMORY}
        if self._spin_ns:
            return {"ns": _slowed(session, samples, self._spin_ns).tolist(), **_NO_MEMORY}
        return super().time(batch=batch, samples=samples, scope=scope, launches=launches)


if __name__ == "__main__":
    serve(commands(sys.stdin), own_output(), kind=TamperedWorker)

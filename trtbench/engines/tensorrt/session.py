"""A loaded engine of TensorRT and its sessions: each has a context, buffers, a stream and a CUDA graph of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from trtbench.engines.base import SessionFacts
from trtbench.engines.cuda.loops import Staged, timed_by_clock, timed_by_events, timed_in_parts
from trtbench.engines.tensorrt.library import LogLines
from trtbench.engines.tensorrt.tensors import (
    PlainContexts,
    allocate,
    choose_profile,
    download,
    image_input,
    open_context,
    set_addresses,
    set_shape,
    upload,
)
from trtbench.errors import EngineError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import tensorrt as trt
    from numpy.typing import NDArray

    from trtbench.engines.base import Parts, Scope
    from trtbench.engines.cuda.device import Cuda, Operation
    from trtbench.engines.sidecar import Sidecar
    from trtbench.engines.tensorrt.tensors import Contexts

_log = logging.getLogger(__name__)
# `clock`: "wall" is what a caller waits; "events" is what passes on the device, without the way to it and back.
_DEFAULTS: Mapping[str, Any] = {"cuda_graph": True, "clock": "wall"}


class TensorrtEngine:
    """A deserialised engine; its sessions share the weights.

    Args:
        engine: of TensorRT.
        runtime: that deserialised it; it must outlive the engine.
        cuda: the device; each session has a stream beside its own, and it is closed with the engine.
        sidecar: of the engine file.
        settings: `cuda_graph` and `clock`; the build's own come from the sidecar.
        lines: what the runtime's logger says.
        contexts: how its sessions' contexts are made.
    """

    def __init__(
        self,
        engine: trt.ICudaEngine,
        runtime: trt.Runtime,
        cuda: Cuda,
        sidecar: Sidecar,
        settings: Mapping[str, Any],
        *,
        lines: LogLines | None = None,
        contexts: Contexts | None = None,
    ) -> None:
        self.device = sidecar.device
        self._engine: trt.ICudaEngine | None = engine
        self._runtime: trt.Runtime | None = runtime
        self._cuda = cuda
        self._sidecar = sidecar
        self._settings = {**_DEFAULTS, **settings, **sidecar.settings}
        self._lines = lines or LogLines()
        self._contexts = contexts or PlainContexts()
        self._sessions: list[TensorrtSession] = []

    def session(self, batch: int) -> TensorrtSession:
        """Return a session at this batch size.

        Raises:
            UnsupportedError: no profile of the engine takes it.
            OutOfMemoryError: it does not fit the device.
            EngineError: TensorRT refuses, or the engine closed.
        """
        if self._engine is None:
            raise EngineError("engine", expected="an open one", got="a closed one", cure="open it again")
        session = TensorrtSession(
            self._engine,
            cuda=self._cuda.beside(),
            sidecar=self._sidecar,
            batch=batch,
            settings=self._settings,
            lines=self._lines,
            contexts=self._contexts,
        )
        self._sessions.append(session)
        return session

    def close(self) -> None:
        """Free all sessions, then the engine, the runtime and the stream: each uses the next."""
        if self._engine is None:
            return
        for session in self._sessions:
            session.close()
        with self._cuda.current():
            self._contexts.keep()
        self._engine = None
        self._runtime = None
        self._cuda.close()


class TensorrtSession(Staged):
    """One context at one batch size, with its buffers.

    The first inference is queued plainly: TensorRT wants one before a capture, and a cold start is timed as such. Then
    it is recorded as a CUDA graph, which runs from the second on.
    """

    def __init__(
        self,
        engine: trt.ICudaEngine,
        *,
        cuda: Cuda,
        sidecar: Sidecar,
        batch: int,
        settings: Mapping[str, Any],
        lines: LogLines,
        contexts: Contexts,
    ) -> None:
        self._settings: dict[str, Any] = dict(settings)
        self._engine = engine  # its context needs it
        self._cuda = cuda
        self._weight_bytes = sidecar.weight_bytes
        self._shape = (batch, *sidecar.preprocessing.input_shape)
        with cuda.current():
            name = image_input(engine)
            profile = choose_profile(engine, name, shape=self._shape)
            self._context = open_context(engine, cuda=cuda, profile=profile, lines=lines, contexts=contexts)
            self._notes = self._context.notes
            handle = self._context.handle
            assert handle is not None, "it is open"
            set_shape(handle, name, shape=self._shape, lines=lines)
            self._tensors = allocate(engine, handle, cuda=cuda, num_classes=sidecar.num_classes)
            set_addresses(handle, self._tensors, lines=lines)
            self._host_in, self._host_out = self._tensors.images.host, self._tensors.logits.host
            self._upload = upload(cuda, self._tensors.images)
            self._download = download(cuda, self._tensors.logits)
        self._plain = _inference(handle, cuda=cuda, lines=lines)
        self._launch = self._plain
        self._is_warm = False
        self._may_capture = bool(self._settings["cuda_graph"])
        self._is_open = True

    def enqueue(self) -> None:
        """Launch one inference."""
        with self._cuda.current():
            if self._is_warm:
                self._capture()
            self._launch()
            self._is_warm = True

    def time(self, samples: int, *, launches_per_sample: int = 1, scope: Scope = "device") -> NDArray[np.int64]:
        """Return `samples` durations in nanoseconds, each of `launches_per_sample` inferences and one wait.

        One launch is the latency that a caller sees; several hide the way to the device behind one another, and their
        number over the duration is the throughput. host-to-host adds the copies, from and to page-locked memory.
        """
        timed = timed_by_events if self._settings["clock"] == "events" else timed_by_clock
        with self._cuda.current():
            self._warm()
            one = (self._upload, self._launch, self._download) if scope == "host-to-host" else (self._launch,)
            return timed(self._cuda, one * launches_per_sample, samples=samples)

    def time_parts(self, samples: int) -> Parts:
        """Return how long each part of `samples` inferences took."""
        with self._cuda.current():
            self._warm()
            return timed_in_parts(
                self._cuda, upload=self._upload, launch=self._launch, download=self._download, samples=samples
            )

    def describe(self) -> SessionFacts:
        """Return what is in force: where no CUDA graph could be captured, `cuda_graph` is False, with the reason.

        Its memory is that of weights, activations, inputs and outputs. The weights are as the build counted them; the
        CUDA context and what CuPy's pool keeps are left out.
        """
        return SessionFacts(
            settings=dict(self._settings),
            clock="cuda-events" if self._settings["clock"] == "events" else "wall",
            memory_bytes=self._weight_bytes + self._context.memory_bytes + self._tensors.device_bytes,
            notes=self._notes,
        )

    def close(self) -> None:
        """Free the graph, then the context, then the buffers, then the stream: each uses the next."""
        if not self._is_open:
            return
        self._is_open = False
        with self._cuda.current():
            self._cuda.synchronize()
            self._launch = self._plain = _refuse
            self._context.close()
            self._tensors.free()
        self._cuda.close()

    def _warm(self) -> None:
        """Run once plainly if nothing ran yet, and record the graph."""
        if not self._is_warm:
            self._plain()
            self._is_warm = True
        self._capture()
        self._cuda.synchronize()

    def _capture(self) -> None:
        """Record the graph once; where that fails go on without it, and say so where it is seen."""
        if not self._may_capture:
            return
        self._may_capture = False
        self._cuda.synchronize()
        try:
            self._launch = self._cuda.capture(self._plain)
        except (EngineError, UnsupportedError) as error:
            self._settings |= {"cuda_graph": False, "cuda_graph_reason": str(error)}
            self._notes += (f"no CUDA graph: {error}",)
            _log.warning("batch %d runs without a CUDA graph: %s", self._shape[0], error)


def _refuse() -> None:
    raise EngineError("session", expected="an open one", got="a closed one", cure="ask the engine for another")


def _inference(context: trt.IExecutionContext, *, cuda: Cuda, lines: LogLines) -> Operation:
    """Return what queues one inference; TensorRT tells a failure by False alone."""
    execute, stream = context.execute_async_v3, cuda.stream

    def run() -> None:
        if not execute(stream):
            raise lines.error("TensorRT refuses to run the engine", cure="build it again")

    return run

"""A public fake for tests and users: logits by a linear map of the pixels, durations by a script; never a result."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.disk import write_atomically
from trtbench.engines.base import NO_OPTIONS, BackendFacts, BuildResult, OpenEngine, SessionFacts, refuse_precision
from trtbench.errors import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.engines.base import Backend, BuildRequest, Scope
    from trtbench.engines.sidecar import Sidecar

_DEVICE = "simulated"
_DEFAULT = {"ns_per_image": 1_000_000, "jitter": 0.05, "seed": 0}


class FakeBackend:
    """A runtime whose engine files are scripts."""

    name = "fake"
    precisions = ("fp32", "int8")
    suffix = ".json"
    takes_options = False

    def is_simulated(self) -> bool:
        """Say that its rows are no measurements."""
        return True

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:  # noqa: ARG002  the same for all engines
        """Return the version of the script's format; a fake engine is bound to nothing."""
        return BackendFacts(version="1", device=_DEVICE, machine="any", usual_precisions=self.precisions)

    def build(self, request: BuildRequest) -> BuildResult:
        """Write the script of a fake engine: the JSON of `request.source` over the defaults; a graph has no say.

        Keys: `ns_per_image`, `jitter` (relative), `seed`, `classes`, and the faults `crash_at` ("open" | "time") and
        `oom`.

        Raises:
            UnsupportedError: the precision is none of this runtime's.
        """
        refuse_precision(request.precision, self.name, known=self.precisions)
        own = {} if request.source.suffix == ".onnx" else json.loads(request.source.read_bytes())
        script = {**_DEFAULT, "classes": request.num_classes, **own}
        write_atomically(request.engine, json.dumps(script))
        return BuildResult(achieved=request.precision, weight_bytes=0)

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> OpenEngine:
        """Load the script of a fake engine.

        Raises:
            OutOfMemoryError: its script says so.
        """
        script = json.loads(path.read_bytes())
        if script.get("crash_at") == "open":
            os._exit(1)
        if script.get("oom"):
            raise OutOfMemoryError(f"engine {path.name}", expected="enough memory", got="a script that has none")
        shape = sidecar.preprocessing.input_shape
        return OpenEngine(_DEVICE, lambda batch: FakeSession(script, shape=(batch, *shape), settings=settings))


class FakeSession:
    """Deterministic logits and durations."""

    def __init__(
        self, script: Mapping[str, Any], *, shape: tuple[int, ...], settings: Mapping[str, Any] = NO_OPTIONS
    ) -> None:
        self._script = script
        self._settings = settings
        self._random = np.random.default_rng(script["seed"])
        self._weights = np.random.default_rng(script["seed"]).standard_normal(
            (int(np.prod(shape[1:])), script["classes"]), dtype=np.float32
        )
        self._input = np.zeros(shape, dtype=np.float32)
        self._output = np.zeros((shape[0], script["classes"]), dtype=np.float32)

    def copy_in(self, images: NDArray[np.float32]) -> None:
        """Copy float32 images (batch, C, H, W) into the input buffer."""
        np.copyto(self._input, images)

    def enqueue(self) -> None:
        """Compute the logits."""
        self._output = self._input.reshape(len(self._input), -1) @ self._weights

    def synchronize(self) -> None:
        """Nothing is in flight."""

    def copy_out(self) -> NDArray[np.float32]:
        """Return a copy of the logits (batch, classes)."""
        return self._output.copy()

    def time(self, samples: int, *, launches_per_sample: int = 1, scope: Scope = "device") -> NDArray[np.int64]:
        """Return `samples` scripted durations in nanoseconds, without waiting; the copies take a tenth more."""
        if self._script.get("crash_at") == "time":
            os._exit(1)
        images = len(self._input) * launches_per_sample
        scale = self._script["ns_per_image"] * images * (1.1 if scope == "host-to-host" else 1.0)
        jitter = 1 + self._script["jitter"] * self._random.standard_normal(samples)
        durations: NDArray[np.int64] = np.maximum(1, scale * jitter).astype(np.int64)
        return durations

    def time_parts(self, samples: int) -> None:
        """Return None: a script has nothing to tell apart."""

    def describe(self) -> SessionFacts:
        """Return the settings."""
        return SessionFacts(settings=self._settings)

    def close(self) -> None:
        """Nothing to free."""


FAKE: Backend = FakeBackend()

"""How far a build is: TensorRT's nested phases as one share, told from its threads, and a way to stop it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import tensorrt as trt


@dataclass(slots=True, kw_only=True)
class _Phase:
    """A phase under way: which one it is part of, its steps and how many are done."""

    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The phases under way, nested, and the share of the outermost one that is done; not locked."""

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._share = 0.0
        self.outermost = ""

    def start(self, name: str, *, parent: str | None, steps: int) -> None:
        """Note that a phase begins; without a parent it is an outermost one."""
        if parent is None:
            self._share = 0.0
            self.outermost = name
        self._open[name] = _Phase(parent=parent, steps=max(steps, 1))

    def step(self, name: str, step: int) -> None:
        """Note that a step (counted from 0) of a phase is done."""
        if name in self._open:
            self._open[name].done = max(self._open[name].done, step + 1)

    def finish(self, name: str) -> None:
        """Note that a phase is over, as a whole or because the build was cancelled."""
        self._open.pop(name, None)

    @property
    def share(self) -> float:
        """The share done, in [0, 1]; it never falls within an outermost phase."""
        roots = [name for name, phase in self._open.items() if phase.parent not in self._open]
        shares = [self._share_of(name) for name in roots]
        self._share = max([self._share, *shares])
        return self._share

    def _share_of(self, name: str) -> float:
        phase = self._open[name]
        inner = [self._share_of(child) for child, one in self._open.items() if one.parent == name and child != name]
        return min(1.0, (phase.done + max(inner, default=0.0)) / phase.steps)


class BuildWatch:
    """What the monitor of a build and the thread that waits for it share.

    Args:
        on_progress: told the phase and the share; an error it raises stops the build and is kept.
    """

    def __init__(self, on_progress: Callable[[str, float], None] | None) -> None:
        self.error: BaseException | None = None
        self._tell = on_progress
        self._phases = Phases()
        self._lock = threading.Lock()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the build to stop at its next step."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop: TensorRT then gives no engine, as if it had failed."""
        return self._cancelled.is_set()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note that a phase begins."""
        with self._lock:
            self._phases.start(name, parent=parent, steps=steps)
        self._report(name)

    def step(self, name: str, step: int) -> bool:
        """Note that a step is done; say whether the build may go on."""
        with self._lock:
            self._phases.step(name, step)
        self._report(name)
        return not self.is_cancelled

    def finish(self, name: str) -> None:
        """Note that a phase is over."""
        with self._lock:
            self._phases.finish(name)

    def complete(self) -> None:
        """Note that there is an engine: TensorRT does not always tell the last step of the outermost phase."""
        if self._phases.outermost and self._phases.share < 1:
            self._report(self._phases.outermost, 1.0)

    def _report(self, name: str, share: float | None = None) -> None:
        if self._tell is None:
            return
        try:
            with self._lock:  # one at a time, in the order of their shares
                self._tell(name, self._phases.share if share is None else share)
        except BaseException as error:  # noqa: BLE001  raised in a callback of TensorRT it would vanish: it is kept
            self.error = self.error or error
            self.cancel()


def make_monitor(watch: BuildWatch) -> trt.IProgressMonitor:
    """Return the monitor that feeds `watch`; it must outlive the build."""
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # pybind11 wants its own constructor called

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()

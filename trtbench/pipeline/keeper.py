"""What a suite's artefacts share: the store that keeps them, the images they are made of, and who is told."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench.errors import RowError
from trtbench.pipeline.events import Event, Listener, nobody
from trtbench.store import Artefact, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbench.records import Dataset
    from trtbench.suite import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things stand: runs and the store below them, engines, committed manifests."""

    runs: Path = Path("runs")
    engines: Path = Path("engines")
    calib: Path = Path("calib")

    @property
    def store(self) -> Path:
        """The folder of the content-keyed store."""
        return self.runs / ".store"

    @property
    def timing_caches(self) -> Path:
        """The folder of TensorRT's timings of tactics."""
        return self.runs / ".timing"

    @property
    def calibration_caches(self) -> Path:
        """The folder of TensorRT 10's calibration caches, each named by what decides it."""
        return self.runs / ".calibration"


class Absent(Exception):  # noqa: N818  it is no error: it says that something is still to be made
    """An artefact is not there yet, and this look-up makes none."""


class Keeper:
    """Finds the artefacts of one suite, or makes them, each once.

    Args:
        suite: the validated suite.
        places: folders.
        tell: told what is made, reused, or rebuilt and why.
        is_dry: look up only; what is not there raises Absent.
    """

    def __init__(self, suite: Suite, places: Places, *, tell: Listener = nobody, is_dry: bool = False) -> None:
        self.suite = suite
        self.places = places
        self.store = Store(places.store)
        self.tell = tell
        self.is_dry = is_dry
        self._at_hand: dict[str, Artefact] = {}
        self._failed: dict[str, RowError] = {}

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The images of the suite, loaded once."""
        from trtbench.data import load_dataset

        self.tell(Event(stage="data", item=self.suite.data.source, state="started"))
        dataset = load_dataset(self.suite.data)
        counts = f"{len(dataset.train)} train, {len(dataset.validation)} validation, {len(dataset.test)} test"
        self.tell(Event(stage="data", item=dataset.name, state="done", detail=counts))
        return dataset

    @functools.cached_property
    def device(self) -> str:
        """Where training and eager run."""
        import torch

        return "cuda:0" if torch.cuda.is_available() else "cpu"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return self.dataset.preprocessing.input_shape

    def make(
        self,
        kind: str,
        item: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Mapping[str, Any]],
        *,
        content: tuple[str, ...] = ("model.safetensors",),
    ) -> Artefact:
        """Find or make an artefact and tell which it was; a stale one is named with what changed."""
        key = self.store.key(kind, inputs)
        if key in self._failed:
            raise self._failed[key]  # once is enough: every engine that needs it fails for the same reason
        if key not in self._at_hand:
            try:
                self._at_hand[key] = self._found_or_made(kind, item, inputs, maker, content=content)
            except RowError as error:
                self._failed[key] = error
                raise
        return self._at_hand[key]

    def _found_or_made(
        self,
        kind: str,
        item: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Mapping[str, Any]],
        *,
        content: tuple[str, ...],
    ) -> Artefact:
        found = self.store.find(kind, inputs)
        if found is not None and self.is_dry:
            return found
        if found is not None:
            self.store.use(found)
            self.tell(Event(stage=kind, item=item, state="cached", seconds=found.seconds))
            return found
        if self.is_dry:
            raise Absent(kind)
        label = f"{self.suite.name}/{item}"
        if changed := self.store.changed_inputs(kind, inputs, label=label):
            detail = f"made again: {', '.join(changed)} changed"
            self.tell(Event(stage=kind, item=item, state="note", detail=detail))
        self.tell(Event(stage=kind, item=item, state="started"))
        made = self.store.make(kind, inputs, maker, content=content, label=label)
        self.tell(Event(stage=kind, item=item, state="done", seconds=made.seconds))
        return made

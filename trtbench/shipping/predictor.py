"""An engine that answers for images: of a bundle, or of an engine file with its sidecar."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from PIL import Image

from trtbench.data.decode import decode
from trtbench.data.load import records, tensor_words
from trtbench.data.pixels import framed
from trtbench.data.preprocess import normalise
from trtbench.engines.base import backend
from trtbench.engines.sidecar import check_engine, read_sidecar
from trtbench.errors import ConfigError, DataError
from trtbench.graph.reference import parted
from trtbench.records import AsTheyAre, Output
from trtbench.shipping.bundle import BUNDLE, read_bundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.engines.base import Engine, Session
    from trtbench.engines.sidecar import Sidecar
    from trtbench.records import Framing, Preprocessing

OneImage: TypeAlias = "str | PathLike[str] | Image.Image | NDArray[np.uint8]"
Images: TypeAlias = "OneImage | Iterable[OneImage]"
_USUAL_BATCH = 32  # of an engine file that takes any
_AXES = 3  # of an image's array: height, width, channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What one image shows: the likeliest class, its probability, and the likeliest few with theirs, best first."""

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Predictor:
    """An open engine; calls from several threads take turns.

    Args:
        engine: as its runtime opened it.
        sidecar: of its file.
        classes: their names, in the order of the logits; none of a network that is no classifier.
        batch: images the engine takes at once; fewer are padded, so that an image's logits are always the same.
    """

    def __init__(self, engine: Engine, sidecar: Sidecar, *, classes: Sequence[str], batch: int) -> None:
        self.classes = tuple(classes)
        self.batch = batch
        self._outputs = sidecar.outputs
        self._numbers = sidecar.num_classes
        self.preprocessing: Preprocessing = sidecar.preprocessing
        self._engine: Engine = engine
        self._session: Session | None = engine.session(batch)
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(self, images: Images, *, top: int = 1) -> tuple[Prediction, ...]:
        """Say what is on each image.

        Examples:
            >>> with trtbench.load(bundle) as predictor:
            ...     predictor.predict(images[:1], top=3)[0].label
            'circle'

        Args:
            images: one or several: paths, Pillow images, or uint8 arrays (H, W, 3), or one of them all (N, H, W, 3).
            top: how many classes to name.

        Raises:
            ConfigError: the network is no classifier: `outputs` gives what it computes.
            DataError: something is no such image.
        """
        if not self.classes:
            names = ", ".join(one.name for one in self._outputs)
            raise ConfigError("predict", expected="a classifier", got=f"outputs {names}", cure="ask for its outputs()")
        logits = self.logits(images).astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :top]
        named = [
            tuple((self.classes[one], float(own[one])) for one in order)
            for order, own in zip(best, shares, strict=True)
        ]
        return tuple(Prediction(label=found[0][0], probability=found[0][1], top=found) for found in named)

    def outputs(self, images: Any) -> dict[str, NDArray[np.float32]]:
        """Return each output by its name, float32 (N, ...), of images as `predict` takes them.

        A network that takes no pictures gets an array for each input (N, ...) by its name.

        Examples:
            >>> with trtbench.load(bundle) as predictor:
            ...     {name: values.shape for name, values in predictor.outputs(images).items()}
            {'logits': (18, 3)}

        Raises:
            DataError: something is no such image.
        """
        outputs = self._outputs or (Output(name="logits", shape=(self._numbers,)),)
        if isinstance(self.preprocessing, AsTheyAre):
            return parted(self.logits_of_pixels(records(images, self.preprocessing)), outputs)
        return parted(self.logits(images), outputs)

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Return the float32 logits (N, classes) of images, as `predict` takes them; of other outputs all numbers.

        Examples:
            >>> with trtbench.load(bundle) as predictor:
            ...     predictor.logits(images).shape
            (18, 3)

        Raises:
            DataError: something is no such image.
        """
        return self.logits_of_pixels(self.pixels(images))

    def logits_of_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the float32 logits (N, classes) of uint8 pixels (N, C, H, W) of the network's size.

        Raises:
            ConfigError: it was closed.
        """
        found = [np.empty((0, self._numbers), np.float32)]
        for start in range(0, len(pixels), self.batch):
            inputs = normalise(pixels[start : start + self.batch], self.preprocessing)
            padded = inputs[np.minimum(np.arange(self.batch), len(inputs) - 1)]
            found.append(self._run(padded)[: len(inputs)])
        return np.concatenate(found)

    def pixels(self, images: Images) -> NDArray[np.uint8]:
        """Return images, as `predict` takes them, as uint8 (N, 3, height, width).

        Raises:
            DataError: something is no such image.
        """
        fit = self.preprocessing
        if isinstance(fit, AsTheyAre):
            got, cure = "pictures", "ask for its outputs() of an array for each input"
            raise ConfigError("predictor", expected=f"arrays {tensor_words(fit)}", got=got, cure=cure)
        several = _listed(images)
        paths = [Path(one).absolute() for one in several if isinstance(one, (str, PathLike))]
        root = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
        decoded = iter(decode(paths, root=root, framing=fit)[0])
        found = [next(decoded) if isinstance(one, (str, PathLike)) else _framed(one, fit) for one in several]
        return np.stack(found) if found else np.empty((0, *fit.input_shape), np.uint8)

    def close(self) -> None:
        """Let go of the engine; closing twice does nothing."""
        with self._turn:
            if self._session is not None:
                self._session.close()
                self._session = None
                self._engine.close()

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._turn:
            if self._session is None:
                raise ConfigError("predictor", expected="an open one", got="a closed one", cure="load it again")
            self._session.copy_in(inputs)
            self._session.enqueue()
            self._session.synchronize()
            return self._session.copy_out()


def load(path: str | PathLike[str], *, batch: int | None = None) -> Predictor:
    """Open a bundle, or an engine file with its sidecar.

    Examples:
        >>> with trtbench.load(bundle) as predictor:
        ...     predictor.classes
        ('circle', 'square', 'star')

    Args:
        path: a bundle's folder, or an engine.
        batch: images it takes at once; by default, of a bundle, those of the row that was shipped.

    Raises:
        ConfigError: there is none, a file of the bundle was changed, or it has no such batch size.
        SidecarError: the engine is not what its sidecar says, or is for another machine.
        EngineError: the runtime refuses it.
    """
    place = Path(path)
    if (place / BUNDLE).exists() or place.is_dir():
        bundle = read_bundle(place)
        return _opened(place / bundle.engine, bundle.settings, classes=bundle.classes, batch=batch or bundle.batch_size)
    if not place.is_file():
        raise ConfigError(
            f"engine {place}", expected="a bundle or an engine file", got="nothing", cure="`trtbench ship`"
        )
    return _opened(place, {}, classes=(), batch=batch)


def _opened(path: Path, settings: Mapping[str, Any], *, classes: Sequence[str], batch: int | None) -> Predictor:
    sidecar = read_sidecar(path)
    runtime = backend(sidecar.backend)
    check_engine(path, sidecar, machine=runtime.facts(sidecar.options).machine)
    sizes, profile = sidecar.options.get("batch_sizes"), sidecar.options.get("profile")
    allowed = range(profile[0], profile[2] + 1) if profile else sizes
    size = batch or (max(allowed) if allowed else _USUAL_BATCH)
    if allowed and size not in allowed:
        expected = f"{profile[0]} to {profile[2]}" if profile else " or ".join(map(str, allowed))
        raise ConfigError(f"batch of {path}", expected=expected, got=str(size), cure="load it with one of these")
    numbers = () if sidecar.outputs else [str(number) for number in range(sidecar.num_classes)]
    names = classes or sidecar.classes or numbers
    engine = runtime.open(path, sidecar, {**settings, "code": ""})
    return Predictor(engine, sidecar, classes=names, batch=size)


def _listed(images: Images) -> list[OneImage]:
    if isinstance(images, np.ndarray):
        return [images] if images.ndim == _AXES else list(images)
    if isinstance(images, (str, PathLike, Image.Image)):
        return [images]
    return list(images)


def _framed(image: object, framing: Framing) -> NDArray[np.uint8]:
    """Return a Pillow image, or an array (H, W, 3), as uint8 (3, height, width)."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == _AXES and image.shape[2] == _AXES:
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        expected = "a path, a Pillow image, or uint8 (H, W, 3)"
        raise DataError("an image", expected=expected, got=got, cure="convert it first")
    try:
        return framed(image, **framing.framing).transpose(2, 0, 1)
    except ValueError as error:
        raise DataError("an image", expected="8 bits a channel", got=str(error), cure="convert it first") from error

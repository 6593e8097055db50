"""What is known of a suite's images beside their pixels: what its weights expect of them, and which are no new ones.

Weights expect what was noted when we saved them, or what torchvision and timm published. Test images are no new ones
that stand in the training or validation split too, by their pixels or as the same photo.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

from trtbench import _optional
from trtbench.calibrate.leaks import Repeats, repeats
from trtbench.disk import write_atomically
from trtbench.foreign import parse_json
from trtbench.jsonable import to_jsonable
from trtbench.make.recipe import Facts, Given, recipe
from trtbench.records import AsTheyAre, Expected, Framing, Interpolation, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbench.make.makings import Makings
    from trtbench.records import Dataset, Split
    from trtbench.suite import Suite


PUBLISHERS = ("torchvision", "timm")  # of networks that are not ours, and of weights for them
_INTERPOLATIONS: Mapping[str, Interpolation] = {name: name for name in get_args(Interpolation)}
_USUAL_CROP = 0.875  # timm's, where a network says none
_COUNTS = "overlap.json"
ASSUMED = "assumed: "
_LARGEST = 224  # pixels a side that are proposed of photographs, as ImageNet's networks see them
_OF_CIFAR = 32  # as the networks of ours do that keep their first convolution's size
_FEW = 1000  # training images, of which a tenth would tell little
_SEEN = 500  # images whose size is looked at


def expected_input(name: str, checkpoint: Path | None) -> Expected | None:
    """Return what the weights of a checkpoint expect, or None where nobody says.

    torchvision's weights are known by their file's name; weights of another name, and those still to be trained, are
    taken for its first, which were trained in the way that people copy.
    """
    from trtbench.models.checkpoints import facts_of
    from trtbench.models.files import read_metadata

    noted = {} if checkpoint is None else facts_of(read_metadata(checkpoint)).get("metadata", {})
    with suppress(TypeError, ValueError, KeyError, AttributeError):  # an older file of ours, or none of ours
        fit = Preprocessing.read(parse_json(noted["input"]))
        framing = Framing(**fit.framing)
        return Expected(source="noted in the checkpoint", mean=fit.mean, std=fit.std, framing=framing, is_own=True)
    source, _, rest = name.partition(":")
    if source == "torchvision":
        return _of_torchvision(rest, checkpoint)
    return _of_timm(rest) if source == "timm" and _optional.is_installed("timm") else None


def framing_proposed(suite: Suite) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the keys of `data` that say how pictures are framed and split, where the suite does not, and why so."""
    model, given = suite.model, suite.data
    if not given.source.startswith(("folder:", "images:")):
        return {}, {}
    from trtbench.data.folder import training_files

    files = training_files(given.source)
    data: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if "validation" not in given.model_fields_set and given.source.startswith("folder:"):
        data["validation"], reasons["validation"] = 0.1, "share of the training images held out"
        if len(files) < _FEW:
            data["validation"], reasons["validation"] = 0.2, "share held out; a tenth of so few would tell little"
    if given.size is not None:
        return data, reasons
    known = None if model.name.startswith("onnx:") else expected_input(model.name, model.checkpoint)
    if known is None:
        data["size"], reasons["size"] = _size_of(files, model.name)
        return data, reasons
    usual = {"antialias": True, "exif_rotation": False, "crop_ratio": None}
    data |= {name: value for name, value in known.framing.framing.items() if usual.get(name, "") != value}
    if suite.data.mean is None:
        data |= {"mean": known.mean, "std": known.std}
    return data, {**reasons, "size": known.source, "mean": known.source}


def _size_of(files: list[Path], model: str) -> tuple[int | tuple[int, int], str]:
    """Propose the size of images that nobody says: the network's, their own if they share one, else a usual one."""
    from trtbench.data.decode import sizes_of
    from trtbench.graph.given import describe_onnx
    from trtbench.suite import ZOO

    if model.startswith("onnx:") and (fixed := describe_onnx(Path(model.removeprefix("onnx:"))).image_size):
        return fixed, "the graph takes no other"
    sizes = sizes_of(files[:: max(1, len(files) // _SEEN)]) or [(_OF_CIFAR, _OF_CIFAR)]
    height, width = sizes[0]
    if len(set(sizes)) == 1 and max(height, width) <= _LARGEST:
        return (height if height == width else (height, width)), "measured: all images have it"
    is_small = model in ZOO and model not in {"mobilenet_v2", "resnet18", "resnet18_imagenet"}
    side = round(median(min(one) for one in sizes))
    most = _OF_CIFAR if is_small else _LARGEST
    why = "what this network is made for" if is_small else f"at most {most} pixels"
    return min(side, most), f"measured: the shorter side is of {side} pixels, as a median; {why}"


def _of_torchvision(name: str, checkpoint: Path | None) -> Expected | None:
    from torchvision.models import get_model_weights

    with suppress(ValueError):  # an unknown name, which building the network tells
        entries = list(get_model_weights(name))
        own = None if checkpoint is None else checkpoint.name
        named = [entry for entry in entries if entry.url.rpartition("/")[2] == own]
        for entry in (*named, *entries)[:1]:
            fit = entry.transforms()
            return _expected(
                f"torchvision's for {entry}",
                fit.mean,
                fit.std,
                size=fit.crop_size[-1],
                crop_ratio=fit.crop_size[-1] / fit.resize_size[-1],
                interpolation=fit.interpolation.value,
            )
    return None


def _of_timm(name: str) -> Expected | None:
    found = _optional.load("timm").get_pretrained_cfg(name)
    if found is None:
        return None
    high, wide = found.input_size[-2:]
    return _expected(
        f"timm's for {name}",
        found.mean,
        found.std,
        size=high if high == wide else (high, wide),
        crop_ratio=found.crop_pct or _USUAL_CROP,
        interpolation=found.interpolation,
    )


def _expected(
    source: str,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    size: int | tuple[int, int],
    crop_ratio: float,
    interpolation: str,
) -> Expected:
    framing = Framing(
        size=size,
        crop_ratio=round(crop_ratio, 6),
        interpolation=_INTERPOLATIONS.get(interpolation, "bilinear"),
    )
    return Expected(source=source, mean=tuple(mean), std=tuple(std), framing=framing)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFacts(Facts):
    """What weights expect; None where neither their file nor who published them says."""

    found: Expected | None


@recipe(kind="expected", facts=ExpectedFacts, content=(), packages=PUBLISHERS, version=1)
def asked(folder: Path, *, model: str, checkpoint: Given[Path], name: str) -> ExpectedFacts:  # noqa: ARG001  keyed
    """Ask the checkpoint, then who published weights of this network."""
    return ExpectedFacts(found=expected_input(model, checkpoint.value))


def expected(makings: Makings) -> Expected | None:
    """Return what the suite's weights expect; of those published by others only of images that have no own way."""
    model, data = makings.suite.model, makings.suite.data
    if model.checkpoint is None or not model.checkpoint.is_file():
        return None
    name, given = model.checkpoint.name, makings.checkpoint
    assert given is not None, "the suite has one"
    found = makings.book.sure(asked, name, model=model.name, checkpoint=given, name=name)
    known = found.facts.found
    is_meant = known is not None and (known.is_own or data.source.startswith("folder:"))
    return known if is_meant else None


def input_notes(makings: Makings, dataset: Dataset, known: Expected | None) -> tuple[str, ...]:
    """Say what was assumed of the normalisation, and what of the suite is not as the weights expect it."""
    model, data, fit = makings.suite.model, makings.suite.data, dataset.preprocessing
    is_given = model.checkpoint is not None or makings.onnx_path is not None
    shown = f"mean {_listed(fit.mean)}, std {_listed(fit.std)}"
    notes = []
    if isinstance(fit, AsTheyAre):
        return ()
    if data.mean is None and is_given and not (known is not None and known.is_own):
        who = "neither suite nor checkpoint says it" if model.checkpoint is not None else "the suite does not say it"
        notes.append(f"{ASSUMED}{shown}, {dataset.normalisation}; {who}: data.mean and data.std do")
    if known is None:
        return tuple(notes)
    if data.mean is not None and (known.mean, known.std) != (fit.mean, fit.std):
        theirs = f"mean {_listed(known.mean)}, std {_listed(known.std)}"
        notes.append(f"the suite says {shown}; the weights expect {theirs}, {known.source}")
    if known.framing.framing != fit.framing and not dataset.name.startswith("cifar"):
        notes.append(
            f"images are {_framed(fit.framing)}; the weights expect {_framed(known.framing.framing)}, {known.source}"
        )
    elif data.size is None and not known.is_own:
        notes.append(f"images are {_framed(fit.framing)}, {known.source}: the suite names no data.size")
    return tuple(notes)


def _listed(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _framed(framing: dict[str, object]) -> str:
    usual = {"crop_ratio": None, "antialias": True, "exif_rotation": False}
    return ", ".join(f"{name} {value}" for name, value in framing.items() if usual.get(name, value is None) != value)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapFacts(Facts):
    """How many images a test split has, and how many of them stand in the other splits."""

    test: int
    train: Repeats
    validation: Repeats


@recipe(kind="overlap", facts=OverlapFacts, content=(_COUNTS,), packages=("numpy",), version=1)
def compared(folder: Path, *, train: Split, validation: Split, test: Split) -> OverlapFacts:
    """Compare every test image with every training and validation image."""
    found = OverlapFacts(
        test=len(test),
        train=repeats(test.images, train.images),
        validation=repeats(test.images, validation.images),
    )
    write_atomically(folder / _COUNTS, json.dumps(to_jsonable(found)))
    return found


def overlap_notes(makings: Makings) -> tuple[str, ...]:
    """Say how many test images stand in the splits that are learnt from and selected on, where any do."""
    data = makings.dataset
    made = makings.book.make(compared, data.name, train=data.train, validation=data.validation, test=data.test)
    counts, total = made.facts, made.facts.test
    return tuple(
        f"{found.images:,} of {total:,} test images stand in the {name} images too ({found.exact:,} by their pixels,"
        f" {found.near:,} as the same photo): accuracy on them {claim}; take them out of one of the two."
        for name, found, claim in (
            ("training", counts.train, "is not accuracy on new images"),
            ("validation", counts.validation, "was selected for"),
        )
        if found.images
    )

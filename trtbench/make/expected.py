"""What the weights of a suite expect of their images, and what is said where nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  a recipe's arguments are looked at at run time
from typing import TYPE_CHECKING

from trtbench.make.recipe import Facts, Given, recipe
from trtbench.records import Expected  # noqa: TC001  pydantic resolves the fields of facts at run time

if TYPE_CHECKING:
    from trtbench.make.makings import Makings
    from trtbench.records import Dataset

PUBLISHERS = ("torchvision", "timm")  # of networks that are not ours, and of weights for them


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFacts(Facts):
    """What weights expect; None where neither their file nor who published them says."""

    found: Expected | None


@recipe(kind="expected", facts=ExpectedFacts, content=(), packages=PUBLISHERS, version=1)
def asked(folder: Path, *, model: str, checkpoint: Given[Path], name: str) -> ExpectedFacts:  # noqa: ARG001  keyed
    """Ask the checkpoint, then who published weights of this network."""
    from trtbench.models.published import expected_input

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
    if data.mean is None and is_given and not (known is not None and known.is_own):
        who = "neither suite nor checkpoint says it" if model.checkpoint is not None else "the suite does not say it"
        notes.append(f"assumed: {shown}, {dataset.normalisation}; {who}: data.mean and data.std do")
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

"""What weights expect of their images: as noted when we saved them, or as torchvision and timm published theirs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_args

from trtbench import _optional
from trtbench.foreign import parse_json
from trtbench.models.checkpoints import facts_of
from trtbench.models.files import read_metadata
from trtbench.records import Expected, Framing, Interpolation, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_INTERPOLATIONS: Mapping[str, Interpolation] = {name: name for name in get_args(Interpolation)}
_USUAL_CROP = 0.875  # timm's, where a network says none


def expected_input(name: str, checkpoint: Path) -> Expected | None:
    """Return what the weights of a checkpoint expect, or None where nobody says.

    torchvision's weights are known by their file's name; weights of another name are taken for its first, which were
    trained in the way that people copy.
    """
    noted = facts_of(read_metadata(checkpoint)).get("metadata", {})
    with suppress(TypeError, ValueError, KeyError, AttributeError):  # an older file of ours, or none of ours
        return _noted(parse_json(noted["input"]))
    source, _, rest = name.partition(":")
    if source == "torchvision":
        return _of_torchvision(rest, checkpoint)
    return _of_timm(rest) if source == "timm" and _optional.is_installed("timm") else None


def _noted(said: dict[str, Any]) -> Expected:
    fit = Preprocessing.read(said)
    framing = Framing(**fit.framing)
    return Expected(source="noted in the checkpoint", mean=fit.mean, std=fit.std, framing=framing, is_own=True)


def _of_torchvision(name: str, checkpoint: Path) -> Expected | None:
    from torchvision.models import get_model_weights

    with suppress(ValueError):  # an unknown name, which building the network tells
        entries = list(get_model_weights(name))
        named = [entry for entry in entries if entry.url.rpartition("/")[2] == checkpoint.name]
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

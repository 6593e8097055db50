"""Load a network from a checkpoint as users really have them, and save one so that it loads again, pruned or not."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch
from torch import Tensor

from trtbench.disk import write_atomically
from trtbench.errors import CheckpointError, ConfigError, StoreError
from trtbench.foreign import parse_json
from trtbench.jsonable import canonical_json
from trtbench.models.files import FACTS, read_content, read_metadata
from trtbench.models.masks import (
    MASKS,
    inferred_masks,
    keep_zeros,
    masks_from_facts,
    masks_of,
    masks_to_facts,
    zeros_of,
)
from trtbench.models.rounding import grids_from_facts, grids_to_facts, input_grids, round_inputs
from trtbench.models.states import ambiguous_weights, clean_state
from trtbench.models.widths import (
    Request,
    Undrawn,
    compare,
    fitting_names,
    misfit_error,
    narrow,
    narrowed_layers,
    shapes_of,
)
from trtbench.models.zoo import build_model, model_names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from trtbench.models.names import Naming

_SHOWN = 3
# The classifier, by the names that people give it.
_HEAD = re.compile(r"(^|\.)(fc|linear|classifier|heads?|last_linear|output)(\.\w+)?\.weight$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A network in eval mode on the CPU, and what was done to its checkpoint to make it fit."""

    model: nn.Module
    notes: tuple[str, ...]


def load_model(
    name: str,
    *,
    num_classes: int,
    checkpoint: Path | None,
    in_channels: int = 3,
    is_dense: bool = False,
    weights_from: str | None = None,
) -> LoadedModel:
    """Build a network and fill it from a checkpoint, pruned or not.

    Args:
        name: as in `build_model`.
        num_classes: logits.
        checkpoint: a state dict, bare or wrapped, as a torch pickle or safetensors, or a packed file; None leaves
            fresh weights. No code of the file runs; files above 4 GB are refused.
        in_channels: channels of the images.
        is_dense: let every weight learn; else the zeros of a pruned network stay zero in all that comes after.
        weights_from: of a checkpoint of several networks the key, or the prefix of its tensors' names, that is meant.

    Raises:
        ConfigError: no such network.
        CheckpointError: the file cannot be read, does not fit, or holds several networks that do; the message names
            the first layers or the networks, and the cure.
    """
    is_published = ":" not in name or name.startswith("torchvision:")  # their state dicts have all that is drawn
    with Undrawn() if is_published and checkpoint is not None else contextlib.nullcontext():
        model = build_model(name, num_classes=num_classes, in_channels=in_channels).eval()
    if checkpoint is None:
        return LoadedModel(model=model, notes=("the weights are untrained: there is no checkpoint",))
    content = read_content(checkpoint)
    state = clean_state(content.value, path=checkpoint, max_bytes=content.max_bytes, weights_from=weights_from)
    request = Request(
        name=name,
        num_classes=num_classes,
        in_channels=in_channels,
        path=checkpoint,
        is_ordered=content.is_ordered,
    )
    facts = facts_of(content.metadata)
    naming, filled = _fill(model, state.tensors, request)
    saved = facts.get("name")
    origin = [f"saved as {saved!r}, loaded as {name!r}"] if isinstance(saved, str) and saved != name else []
    notes = (*origin, *state.notes, *filled)
    if not is_dense:
        notes += _keep_zeros(
            model, facts, [key for key, theirs in naming.keys.items() if theirs in state.masked], checkpoint
        )
    grids = grids_from_facts(
        facts.get("inputs", {}), layers=frozenset(one for one, _ in model.named_modules()), path=checkpoint
    )
    round_inputs(model, grids)
    return LoadedModel(model=model, notes=(*notes, *([f"{len(grids)} layers round their inputs"] if grids else [])))


def network_of(checkpoint: Path, *, weights_from: str | None = None) -> str:
    """Return the name of the one network that a checkpoint is of.

    Raises:
        CheckpointError: it cannot be read, there is none, or several that it may be of.
    """
    found = networks_of(checkpoint, weights_from=weights_from)
    if len(found) != 1:
        got = " and ".join(found) or "none of ours or of torchvision"
        cure = "name one of these" if found else "name it: timm:NAME, or package.module:callable of your own"
        raise CheckpointError(f"--model of {checkpoint}", expected="one network that it fits", got=got, cure=cure)
    return found[0]


def networks_of(checkpoint: Path, *, weights_from: str | None = None) -> tuple[str, ...]:
    """Return the networks that a checkpoint may be of, by name.

    It is the one that we noted, or that torchvision published under this file's name; else those of ours that it fits,
    else those of torchvision.

    Raises:
        CheckpointError: it cannot be read.
    """
    noted = facts_of(read_metadata(checkpoint)).get("name")
    if isinstance(noted, str):
        return (noted,)
    if published := _published_as(checkpoint.name):
        return published
    content = read_content(checkpoint)
    state = clean_state(content.value, path=checkpoint, max_bytes=content.max_bytes, weights_from=weights_from)
    shapes = shapes_of(state.tensors)
    matrices = {key: shape[0] for key, shape in shapes.items() if len(shape) in {2, 4} and key.endswith("weight")}
    heads = [outputs for key, outputs in matrices.items() if _HEAD.search(key)] or [*matrices.values()]
    request = Request(
        name="", num_classes=heads[-1] if heads else 1, in_channels=3, path=checkpoint, is_ordered=content.is_ordered
    )
    return tuple(
        fitting_names(shapes, request, names=model_names()) or fitting_names(shapes, request, names=_of_torchvisions())
    )


def _of_torchvisions() -> list[str]:
    import torchvision

    return [f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)]


def _published_as(file: str) -> tuple[str, ...]:
    from torchvision.models import get_model_weights

    names = (name.partition(":")[2] for name in _of_torchvisions())
    entries = ((name, entry) for name in names for entry in get_model_weights(name))
    return tuple(f"torchvision:{name}" for name, entry in entries if entry.url.rpartition("/")[2] == file)[:1]


def save_model(path: Path, model: nn.Module, *, name: str, num_classes: int, metadata: Mapping[str, str]) -> None:
    """Write a network's weights as safetensors, whole or not at all; equal weights and metadata give equal bytes.

    The widths of a pruned network lie in the shapes of its tensors, so that `load_model` needs no pruner.

    Args:
        path: the file.
        model: a network on any device.
        name: what `load_model` will be called with.
        num_classes: likewise.
        metadata: text to keep beside the weights.

    Raises:
        StoreError: the file cannot be written.
    """
    known = {"name": name, "num_classes": num_classes, "metadata": dict(metadata), MASKS: masks_to_facts(model)}
    inputs = grids_to_facts(input_grids(model))
    facts = canonical_json(known | ({"inputs": inputs} if inputs else {}))
    state = model.state_dict().items()
    try:
        # Tied weights share memory, which the format refuses: each key gets its own copy.
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state if isinstance(value, Tensor)}
        data = safetensors.torch.save(tensors, metadata={FACTS: facts})
    except (RuntimeError, ValueError) as error:
        raise StoreError(
            f"cannot write {path}",
            expected="dense tensors",
            got=str(error),
            cure="save the network before quantization",
        ) from error
    write_atomically(path, data)


def facts_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what a file of ours says of itself; nothing where it is another's."""
    facts: Any = None
    with contextlib.suppress(ValueError):
        facts = parse_json(metadata.get(FACTS, ""))
    return facts if isinstance(facts, dict) else {}


def _keep_zeros(model: nn.Module, facts: Mapping[str, Any], masked: list[str], path: Path) -> tuple[str, ...]:
    """Let a network keep the zeros that its file says are masked, or that look so where it says nothing; and say it."""
    odd: tuple[str, ...] = ()
    if MASKS in facts:
        masks, source = masks_from_facts(facts[MASKS], model, path=path), "by the masks of the file"
    elif masked:
        zeros, source = zeros_of(model), "by the masks of the file"
        masks = {name: zeros[name] for name in zeros if f"{name}.weight" in masked}
    else:
        masks, odd = inferred_masks(model)
        source = "which look pruned; --dense (model.dense) lets them learn"
    keep_zeros(model, masks)
    kept = masks_of(model)
    weights = sum(mask.numel() for mask in kept.values())
    share = sum(int((~mask).sum()) for mask in kept.values()) / max(1, weights)
    said = f"zeros stay zero in {len(kept)} layers ({share:.1%} of their weights), {source}"
    learns = f"zeros of {', '.join(odd[:_SHOWN])} may learn: they may be values of a grid"
    return (*([said] if kept else []), *([learns] if odd else []))


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], request: Request) -> tuple[Naming, list[str]]:
    naming, misfits = compare(model, shapes_of(tensors), request)
    if naming.candidates:
        raise ambiguous_weights(naming.candidates, path=request.path)
    if misfits:
        raise misfit_error(model, shapes_of(tensors), misfits, request)
    state = {key: tensors[theirs] for key, theirs in naming.keys.items()}
    narrowed = narrowed_layers(model, shapes_of(state))
    if shapes_of(state) != {key: shape for key, shape in shapes_of(model.state_dict()).items() if key in state}:
        _narrow(model, state, request)
    # On top of the network's own state: that carries the format versions some layers ask for (MNASNet), and the
    # num_batches_tracked that older checkpoints lack.
    whole = model.state_dict()
    whole.update(state)
    model.load_state_dict(whole)
    return naming, [*naming.notes, *_narrowed_note(narrowed, request.name)]


def _narrow(model: nn.Module, state: Mapping[str, Tensor], request: Request) -> None:
    try:
        narrow(model, shapes_of(state))
    except ConfigError as error:
        raise CheckpointError(
            f"checkpoint {request.path}: the widths of its layers",
            expected=f"a {request.name} with fewer channels",
            got=str(error),
            cure="name the network that it was pruned from",
        ) from error


def _narrowed_note(narrowed: Mapping[str, tuple[int, int]], name: str) -> list[str]:
    if not narrowed:
        return []
    shown = ", ".join(f"{layer} {full} -> {got}" for layer, (full, got) in list(narrowed.items())[:_SHOWN])
    return [f"pruned: {len(narrowed)} layers are narrower than {name}'s, as {shown}"]

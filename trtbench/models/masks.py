"""Zeros that stay: masks that the layers of a network carry, that its file records, and that training holds.

A mask is bool, of its weight's shape, True where the weight stays. A copy of a network has its masks too.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from trtbench.errors import CheckpointError
from trtbench.foreign import MISFITS
from trtbench.models.counts import WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

Masks = dict[str, "Tensor"]
MASKS = "masks"  # the fact of a file that has them, by layer
_ATTRIBUTE = "zero_mask"
# Of a weight's rows that are not all zero. Training makes no zero: of 203 trained tensors in seven checkpoints of four
# authors none has one.
_SPARSE = 0.01
_LEVELS = 256  # values of a grid of 8 bits, or of a code book
_AT_ZEROS = "zeros:"  # before bits of the zeros alone; without it they are of all weights, as files once had them
_FEWEST = 4  # distinct values of a row that say whether it lies on a grid


def prunable_weights(model: nn.Module, *, exclude: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the weights of the convolutions and linear layers by the layer's name, in the order of the modules.

    Args:
        model: any network.
        exclude: layers whose name contains one of these are left out.
    """
    return {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, WEIGHTED) and not any(part in name for part in exclude)
    }


def zeros_of(model: nn.Module, *, exclude: tuple[str, ...] = ()) -> Masks:
    """Return a mask for each prunable weight: True where it is not zero."""
    return {name: weight.detach() != 0 for name, weight in prunable_weights(model, exclude=exclude).items()}


def keep_zeros(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Let layers keep at zero what the masks let go, from now on; what they kept before they go on keeping."""
    for name, mask in masks.items():
        layer = model.get_submodule(name)
        before = getattr(layer, _ATTRIBUTE, None)
        kept = mask if before is None else mask & before
        if not kept.all():
            setattr(layer, _ATTRIBUTE, kept)


def masks_of(model: nn.Module) -> Masks:
    """Return the masks of the layers that have one."""
    found = {name: getattr(module, _ATTRIBUTE, None) for name, module in model.named_modules()}
    return {name: mask for name, mask in found.items() if mask is not None}


def fit_masks(model: nn.Module) -> None:
    """Make the masks those of the zeros there are: the channels of the network are others now."""
    weights = prunable_weights(model)
    for name in masks_of(model):
        setattr(model.get_submodule(name), _ATTRIBUTE, weights[name].detach() != 0)


def set_to_zero(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Set to zero, in place, what the masks let go; no zero is negative."""
    for name, mask in masks.items():
        weights[name].data.masked_fill_(~mask, 0.0)


def inferred_masks(model: nn.Module) -> tuple[Masks, tuple[str, ...]]:
    """Return masks of the layers that look pruned, and the names of those whose zeros may be values of a grid.

    A weight that is zero all over is one that begins there, and so are rows of zeros among rows that have none.
    """
    sparse = {name: mask for name, mask in zeros_of(model).items() if _is_sparse(mask)}
    weights = prunable_weights(model)
    odd = tuple(name for name in sparse if _is_on_grid(weights[name].detach()))
    return {name: mask for name, mask in sparse.items() if name not in odd}, odd


def masks_to_facts(model: nn.Module) -> dict[str, str | None]:
    """Return the masks as values for JSON: None where they are the weight's own zeros, else which zeros may change."""
    zeros = zeros_of(model)
    return {name: _recorded(mask.cpu(), zeros[name].cpu()) for name, mask in masks_of(model).items()}


def masks_from_facts(facts: Any, model: nn.Module, *, path: Path) -> Masks:
    """Read masks back from a file's facts.

    Raises:
        CheckpointError: they are of another network, or make no sense.
    """
    try:
        zeros = zeros_of(model)
        masks = {str(name): _unpacked(bits, zeros[name]) for name, bits in dict(facts).items()}
    except (*MISFITS, zlib.error) as error:
        cure = "make it again with trtbench, or load it with --dense, which lets its zeros learn"
        raise CheckpointError(
            f"checkpoint {path}: the masks of its zeros", expected="those of its layers", got=repr(error), cure=cure
        ) from error
    return masks


def _recorded(mask: Tensor, zeros: Tensor) -> str | None:
    if torch.equal(mask, zeros):
        return None
    is_held = not (zeros & ~mask).any()
    return _AT_ZEROS + _packed(mask[~zeros]) if is_held else _packed(mask)


def _packed(mask: Tensor) -> str:
    bits = np.packbits(mask.cpu().reshape(-1).numpy())
    return base64.b64encode(zlib.compress(bits.tobytes(), 9)).decode()


def _unpacked(bits: Any, zeros: Tensor) -> Tensor:
    if bits is None:
        return zeros
    is_short = str(bits).startswith(_AT_ZEROS)
    count = int((~zeros).sum()) if is_short else zeros.numel()
    bits = bits.removeprefix(_AT_ZEROS) if is_short else bits
    try:
        inflater = zlib.decompressobj()
        data = inflater.decompress(base64.b64decode(bits, validate=True), -(-count // 8) + 1)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    found = np.unpackbits(np.frombuffer(data, np.uint8))[:count].astype(bool)
    if len(found) != count:
        raise ValueError(f"{len(found)} of {count} bits")
    if is_short:
        return zeros.masked_scatter(~zeros, torch.from_numpy(found))
    mask = torch.from_numpy(found).reshape(zeros.shape)
    if (zeros & ~mask).any():
        raise ValueError("a weight that is not zero where its mask lets it go")
    return mask


def _is_sparse(mask: Tensor) -> bool:
    rows = mask.reshape(len(mask), -1)
    alive = rows[rows.any(1)]
    return bool(alive.numel()) and float((~alive).float().mean()) > _SPARSE


def _is_on_grid(weight: Tensor) -> bool:
    """Say whether the values repeat as those of few bits or of a code book do, or lie evenly spaced in each row."""
    kept = weight[weight != 0]
    levels = len(torch.unique(kept))
    if levels <= min(_LEVELS, kept.numel() // 2):
        return True
    rows = [row for row in weight.reshape(len(weight), -1) if len(torch.unique(row)) >= _FEWEST]
    return bool(rows) and all(_is_even(row) for row in rows)


def _is_even(row: Tensor) -> bool:
    """Say whether all values are whole multiples of one step apart, of at most 8 bits."""
    values = torch.unique(row.double())
    gaps = values.diff()
    steps = gaps.min() / torch.arange(1, _FEWEST + 1)  # the closest two may be some steps apart
    counts = (values - values[0]) / steps[:, None]
    is_whole = ((counts - counts.round()).abs() < 0.01).all(1) & (counts[:, -1] < 2 * _LEVELS)  # noqa: PLR2004  float32 rounds
    return bool(is_whole.any())

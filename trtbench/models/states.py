"""Checkpoint contents to one clean state dict: wrappers opened, training's leftovers dropped, float32, finite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trtbench.errors import CheckpointError, listed

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

# Wrapper keys in the order they are looked for; averaged weights first, as timm does: they are the ones that score.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_WRAPPERS = (
    *_AVERAGED,
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
)
# Of several networks: what is trained to be used, and what is there to train it.
_DEPLOYED = re.compile(r"student|(^|[._])(ema|generator|netg|g_ema)([._]|$)")
_TRAIN_OTHERS = re.compile(r"teacher|discriminator|critic|expert|(^|[._])netd([._]|$)")
_MAX_DEPTH = 4
_OFFERED, _SOME = 8, 3  # keys that an error names, and that a note does
# Buffers of profilers (thop), averaging (torch.optim.swa_utils) and auxiliary classifiers used in training only.
_LEFTOVERS = re.compile(r"(^|\.)(total_ops|total_params|n_averaged)$|^(module\.)?(aux1|aux2|AuxLogits)\.")
# Tensors that hold weights whatever the layer; others (counters, index tables) may be integers.
_NUMBERS = {"weight", "bias", "running_mean", "running_var"}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Tensors by key in the checkpoint's order: finite, dense, float32 (counters int64); and what was done to them.

    `masked` are those that came with a mask, which is multiplied in.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


def clean_state(content: Any, *, path: Path, max_bytes: int, weights_from: str | None = None) -> State:
    """Find the state dict inside a checkpoint's content and bring it into float32.

    Args:
        content: what the file held.
        path: the file, for messages.
        max_bytes: the most the tensors may take in float32.
        weights_from: a key of the checkpoint, or a prefix of its tensors' names, below which alone is looked.

    Raises:
        CheckpointError: no state dict, several, tensors that are no plain numbers, or NaN or infinite weights.
    """
    if weights_from is None:
        found, notes = _unwrap(content, path=path)
    else:
        found, notes = _unwrap(_below(content, weights_from.strip("."), path=path), path=path)
        notes.insert(0, f"took {weights_from!r} of the checkpoint, as asked")
    tensors, dropped = _tensors_of(found)
    if dropped:
        notes.append(f"left out of the checkpoint: {listed(dropped, _SOME)}")
    _check_sizes(tensors, path=path, max_bytes=max_bytes)
    tensors, masked = _merge_masks(tensors, path=path)
    if masked:
        notes.append(f"weight masks of torch.nn.utils.prune multiplied in: {listed(masked, _SOME)}")
    _check_kinds(tensors, path=path)
    tensors, converted = _to_float32(tensors)
    notes += converted
    _check_finite(tensors, path=path)
    return State(tensors=tensors, notes=tuple(notes), masked=tuple(masked))


def _below(content: Any, part: str, *, path: Path) -> Mapping[Any, Any]:
    """Return what a checkpoint has under a key, or of the tensors whose names start so, whatever wraps them."""
    level, offered = content, ""
    for _ in range(_MAX_DEPTH):
        if not isinstance(level, Mapping):
            break
        if isinstance(level.get(part), Mapping):
            return dict(level[part])
        under = {key: value for key, value in level.items() if str(key).startswith(f"{part}.")}
        if under:
            return under
        offered = listed(sorted({str(key).partition(".")[0] for key in level}), _OFFERED)
        inner = [key for key, value in level.items() if _holds_tensors(value)]
        key = next((key for key in _WRAPPERS if key in inner), inner[0] if len(inner) == 1 else None)
        level = None if key is None else level[key]
    raise CheckpointError(
        f"checkpoint {path}: --weights-from {part}",
        expected="a key of the checkpoint, or a prefix of its tensors' names",
        got=f"it has {offered or 'no tensors'}",
        cure="name one of these, with what follows it after a dot",
    )


def _unwrap(content: Any, *, path: Path) -> tuple[Mapping[Any, Any], list[str]]:
    notes: list[str] = []
    for _ in range(_MAX_DEPTH):
        if not isinstance(content, Mapping):
            break
        key = _wrapper_key(content, path=path)
        if key is None:
            if any(isinstance(value, Tensor) for value in content.values()):
                return content, notes
            break
        beside = [str(name) for name in content if name != key]
        notes.append(f"took {key!r} of the checkpoint" + (f", beside {listed(beside, _SOME)}" if beside else ""))
        content = content[key]
    raise CheckpointError(
        f"checkpoint {path}",
        expected="a state dict, or one under 'state_dict', 'model' or 'net'",
        got=_described(content),
        cure="save the weights alone: torch.save(model.state_dict(), path)",
    )


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    return f"keys {listed([str(key) for key in content], _SOME)}" if content else "nothing"


def _wrapper_key(content: Mapping[Any, Any], *, path: Path) -> Any | None:
    """Return the key under which the weights lie, or None where the mapping is itself the state dict, or nothing."""
    inner = [key for key, value in content.items() if _holds_tensors(value)]
    known = [key for key in _WRAPPERS if key in inner]
    averaged = [key for key in known if key in _AVERAGED]
    if known:
        _require_one(averaged or known, path=path)
        return known[0]
    if any(isinstance(value, Tensor) for value in content.values()):
        return None
    # An unknown name is followed only where there is no choice: a GAN's checkpoint holds two networks.
    _require_one(inner, path=path)
    return next(iter(inner), None)


def _require_one(keys: list[Any], *, path: Path) -> None:
    if len(keys) > 1:
        raise ambiguous_weights([str(key) for key in keys], path=path)


def ambiguous_weights(candidates: Collection[str], *, path: Path) -> CheckpointError:
    """Say that a checkpoint holds several networks, any of which may be meant; the example is what people deploy."""

    def serves_training(name: str) -> int:
        return bool(_TRAIN_OTHERS.search(name.lower())) - bool(_DEPLOYED.search(name.lower()))

    example = min(candidates, key=serves_training)
    return CheckpointError(
        f"checkpoint {path}",
        expected="the weights of one network",
        got=f"{len(candidates)} that could be meant: {', '.join(candidates)}",
        cure=f"choose one: --weights-from {example} (model.weights_from)",
    )


def _holds_tensors(value: Any, *, depth: int = _MAX_DEPTH) -> bool:
    """Whether a mapping has tensors by name in it, or another that has; an optimizer's state has them by number."""
    if not isinstance(value, Mapping) or not depth:
        return False
    return any(
        isinstance(key, str) and (isinstance(one, Tensor) or _holds_tensors(one, depth=depth - 1))
        for key, one in value.items()
    )


def _tensors_of(found: Mapping[Any, Any]) -> tuple[dict[str, Tensor], list[str]]:
    tensors = {str(key).replace("_orig_mod.", ""): value for key, value in found.items() if isinstance(value, Tensor)}
    kept = {key: value for key, value in tensors.items() if not _LEFTOVERS.search(key)}
    others = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    return kept, [key for key in tensors if key not in kept] + others


def _merge_masks(tensors: dict[str, Tensor], *, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Turn NAME_orig and NAME_mask of torch.nn.utils.prune into NAME."""
    bases = [key.removesuffix("_orig") for key in tensors if key.endswith("_orig")]
    masked = [base for base in bases if f"{base}_mask" in tensors]
    for base in masked:
        if tensors[f"{base}_orig"].shape != tensors[f"{base}_mask"].shape:
            raise CheckpointError(
                f"checkpoint {path}: {base}_mask",
                expected=f"the shape {tuple(tensors[f'{base}_orig'].shape)} of its weight",
                got=str(tuple(tensors[f"{base}_mask"].shape)),
                cure="call torch.nn.utils.prune.remove before saving",
            )
    merged = {
        **{base: tensors[f"{base}_orig"] * tensors[f"{base}_mask"] + 0.0 for base in masked},  # no zero is negative
        **{
            key: value
            for key, value in tensors.items()
            if key.removesuffix("_orig").removesuffix("_mask") not in masked
        },
    }
    return {key: merged[key] for key in _order(tensors, merged)}, masked


def _order(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Keep the order of modules: a merged weight stands where its module's first tensor stood."""
    rank: dict[str, int] = {}
    for key in before:
        rank.setdefault(key.rpartition(".")[0], len(rank))
    return sorted(after, key=lambda key: rank[key.rpartition(".")[0]])


def _check_sizes(tensors: dict[str, Tensor], *, path: Path, max_bytes: int) -> None:
    """Refuse tensors of more numbers than their file can hold, before one of them is computed with."""
    claimed = 4 * sum(tensor.numel() for tensor in tensors.values())
    if claimed > max_bytes:
        raise CheckpointError(
            f"checkpoint {path}",
            expected=f"at most {max_bytes / 1e9:.3g} GB of weights",
            got=f"{claimed / 1e9:.3g} GB",
            cure="use a smaller network, or save the weights again without expanded tensors",
        )


def _check_kinds(tensors: dict[str, Tensor], *, path: Path) -> None:
    for key, tensor in tensors.items():
        kind = _odd_kind(key, tensor)
        if kind:
            raise CheckpointError(
                f"checkpoint {path}: {key}",
                expected="a dense tensor of floating-point numbers",
                got=kind,
                cure="save the network in float32, before quantization: model.float().state_dict()",
            )


def _odd_kind(key: str, tensor: Tensor) -> str:
    if tensor.is_meta:
        return "a tensor without data (device meta)"
    if tensor.is_quantized or tensor.layout != torch.strided:
        return f"a {tensor.dtype} tensor of layout {tensor.layout}".replace("torch.", "")
    if key.rpartition(".")[2] in _NUMBERS and not tensor.is_floating_point():
        return f"a tensor of {str(tensor.dtype).removeprefix('torch.')}"
    return ""


def _to_float32(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    odd: dict[str, int] = {}
    for tensor in tensors.values():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            name = str(tensor.dtype).removeprefix("torch.")
            odd[name] = odd.get(name, 0) + 1
    converted = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    return converted, [f"{count} tensors converted from {name} to float32" for name, count in odd.items()]


def _check_finite(tensors: dict[str, Tensor], *, path: Path) -> None:
    bad = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise CheckpointError(
            f"checkpoint {path}: {len(bad)} of {len(tensors)} tensors",
            expected="finite weights in float32",
            got=f"NaN or infinity in {listed(bad, _SOME)}",
            cure="the training diverged or the file is damaged: use an earlier checkpoint",
        )

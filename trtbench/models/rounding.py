"""What flows into a layer, rounded to few bits: a part of the network that its checkpoint carries as a fact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trtbench.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

_ATTRIBUTE = "input_grid"
_MOST = 2**16
_CANDIDATES = 60  # clipping thresholds that are tried


@dataclass(frozen=True, slots=True, kw_only=True)
class InputGrid:
    """Whole numbers from `lowest` to `highest`, times `scale`; rounding passes gradients through, clipping does not."""

    scale: float
    lowest: int
    highest: int

    def __call__(self, _layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Round a layer's first input; what torch calls before the layer."""
        inside = (arguments[0] / self.scale).clamp(self.lowest, self.highest)
        return ((inside + (inside.round() - inside).detach()) * self.scale, *arguments[1:])


def round_inputs(model: nn.Module, grids: Mapping[str, InputGrid]) -> None:
    """Let layers, by name, round what flows into them, from now on."""
    for name, grid in grids.items():
        layer = model.get_submodule(name)
        layer.register_forward_pre_hook(grid)
        setattr(layer, _ATTRIBUTE, grid)


def input_grids(model: nn.Module) -> dict[str, InputGrid]:
    """Return the layers that round what flows into them."""
    found = {name: getattr(module, _ATTRIBUTE, None) for name, module in model.named_modules()}
    return {name: grid for name, grid in found.items() if grid is not None}


def grids_to_facts(grids: Mapping[str, InputGrid]) -> dict[str, list[float]]:
    """Return grids as values for JSON."""
    return {name: [grid.scale, grid.lowest, grid.highest] for name, grid in grids.items()}


def grids_from_facts(facts: Any, *, layers: frozenset[str], path: Path) -> dict[str, InputGrid]:
    """Read grids back from a file's facts.

    Raises:
        CheckpointError: they are of another network, or make no sense.
    """
    try:
        grids = {
            str(name): InputGrid(scale=float(scale), lowest=int(lowest), highest=int(highest))
            for name, (scale, lowest, highest) in dict(facts).items()
        }
    except (TypeError, ValueError) as error:
        raise _refusal(path, got=str(error)) from error
    for name, grid in grids.items():
        is_sound = 0 < grid.scale < float("inf") and -_MOST <= grid.lowest <= 0 < grid.highest <= _MOST
        if not (is_sound and name in layers):
            raise _refusal(path, got=f"{name}: {grid}")
    return grids


def _refusal(path: Path, *, got: str) -> CheckpointError:
    what, cure = f"checkpoint {path}: the rounding of its activations", "quantize the network again"
    return CheckpointError(what, expected="a positive scale and a range of codes for layers it has", got=got, cure=cure)


def fit_grid(values: Tensor, *, bits: int) -> InputGrid:
    """Return the grid of the least squared error for these values, unsigned where none of them is negative.

    The clipping threshold is searched among shares of the largest magnitude (Banner et al., "Post Training 4-bit
    Quantization of Convolutional Networks", 2019, section 3, numerically instead of for a Laplacian).
    """
    is_signed = bool((values < 0).any())
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    largest = float(values.abs().max()) or 1.0
    scales = [largest * share / _CANDIDATES / highest for share in range(1, _CANDIDATES + 1)]
    errors = [float(((values / s).round().clamp(lowest, highest) * s - values).square().mean()) for s in scales]
    best = scales[int(torch.tensor(errors).argmin())]
    return InputGrid(scale=best, lowest=lowest, highest=highest)

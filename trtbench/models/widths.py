"""Whether a checkpoint fits a network, pruned or not; the widths it gives it; and the error where it does not fit."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trtbench.errors import CheckpointError, ConfigError
from trtbench.models.counts import BATCH_NORMS, CONVOLUTIONS, evaluating, run_zeros
from trtbench.models.names import Misfit, Naming, name_tensors, units_of
from trtbench.models.zoo import build_model, model_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from trtbench.models.names import Shape


_CHANNEL_NORMS = (
    *BATCH_NORMS,
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
# Sizes of the images that the zoos' networks are made for, in pixels; the first that a network takes is used.
_SIZES = (32, 64, 224, 299)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Return the shape of each tensor by its name."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def classifier_of(model: nn.Module, *, num_classes: int) -> str | None:
    """Return the name of the last convolution or linear layer with as many outputs as there are classes."""
    layers = [(name, outputs_of(module)) for name, module in model.named_modules()]
    return next((name for name, outputs in reversed(layers) if outputs == num_classes), None)


def first_convolution_of(model: nn.Module) -> str | None:
    """Return the name of the first convolution, which sees the image."""
    return next((name for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)), None)


def outputs_of(module: nn.Module) -> int | None:
    """Return the outputs of a convolution or linear layer, None of anything else."""
    if isinstance(module, CONVOLUTIONS):
        return module.out_channels
    return module.out_features if isinstance(module, nn.Linear) else None


def width_misfits(model: nn.Module, shapes: Mapping[str, Shape], *, num_classes: int) -> tuple[Misfit, ...]:
    """Name the tensors whose shape no pruning of channels explains.

    Pruning leaves the number of dimensions, the kernel, the image's channels and the classes, and widens nothing. A
    parameter of no layer, such as a class token, may have its channels last.
    """
    network = shapes_of(model.state_dict())
    classifier = classifier_of(model, num_classes=num_classes)
    first = first_convolution_of(model)
    fixed = {f"{classifier}.weight": 0, f"{classifier}.bias": 0}  # key -> the dimension that may not change
    kernels = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)}
    misfits = []
    for key, got in shapes.items():
        full = network[key]
        keeps_kernel = got[2:] == full[2:] or (key not in kernels and got[:-1] == full[:-1])
        is_narrower = len(got) == len(full) and keeps_kernel and all(0 < g <= f for g, f in zip(got, full, strict=True))
        keeps_images = key != f"{first}.weight" or got[1:2] == full[1:2]
        keeps_classes = key not in fixed or got[:1] == full[:1]
        if not (is_narrower and keeps_images and keeps_classes):
            misfits.append(Misfit(layer=key, expected=_times(full), got=_times(got), shapes=(full, got)))
    return tuple(misfits)


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "one number"


def narrowed_layers(model: nn.Module, shapes: Mapping[str, Shape]) -> dict[str, tuple[int, int]]:
    """Return (outputs of the network, outputs of the checkpoint) of each layer that the checkpoint has narrower."""
    pairs = {
        name: (outputs, shapes[f"{name}.weight"][0])
        for name, module in model.named_modules()
        if (outputs := outputs_of(module)) is not None and f"{name}.weight" in shapes
    }
    return {name: pair for name, pair in pairs.items() if pair[1] < pair[0]}


def narrow(model: nn.Module, shapes: Mapping[str, Shape]) -> None:
    """Give the network the shapes of a pruned state dict, in place; the new tensors hold zeros.

    Grouped convolutions keep their number of groups, as torch-pruning leaves them; depthwise ones keep one channel per
    group.

    Raises:
        ConfigError: widths that cannot stand together; the message names the layer or the operation.
    """
    size = _size_taken(model)
    by_path = {unit.path: unit.shapes for unit in units_of(shapes)}
    for name, module in model.named_modules():
        own = by_path.get(name, {})
        _narrow_tensors(module, own)
        _narrow_numbers(name, module, own.get("weight") or own.get("running_mean") or own.get("in_proj_weight"))
    if size is not None:
        _run(model, size)


def _narrow_tensors(module: nn.Module, shapes: Mapping[str, Shape]) -> None:
    for leaf, shape in shapes.items():
        old: Tensor = getattr(module, leaf)
        if tuple(old.shape) == shape:
            continue
        new = torch.zeros(shape, dtype=old.dtype, device=old.device)
        setattr(
            module, leaf, nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
        )


def _narrow_numbers(name: str, module: nn.Module, shape: Shape | None) -> None:
    """Bring the numbers that a module keeps beside its tensors up to date."""
    if shape is None:
        return
    if isinstance(module, CONVOLUTIONS):
        _narrow_convolution(name, module, shape)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, _CHANNEL_NORMS):
        module.num_features = shape[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = shape
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = shape[0]
    elif isinstance(module, nn.MultiheadAttention):
        module.embed_dim = module.kdim = module.vdim = shape[1]
        module.head_dim = shape[1] // module.num_heads  # torch-pruning narrows the heads and leaves their number
    elif isinstance(module, nn.PReLU):
        module.num_parameters = shape[0]


def _narrow_convolution(name: str, module: nn.Conv1d | nn.Conv2d | nn.Conv3d, shape: Shape) -> None:
    outputs, inputs_per_group = shape[:2]
    is_depthwise = module.groups > 1 and module.groups == module.in_channels
    groups = outputs * module.groups // module.out_channels if is_depthwise else module.groups
    if groups == 0 or outputs % groups:
        raise ConfigError(
            f"convolution {name!r}", expected=f"a multiple of its {module.groups} groups", got=f"{outputs} outputs"
        )
    module.groups, module.out_channels, module.in_channels = groups, outputs, inputs_per_group * groups


def _size_taken(model: nn.Module) -> int | None:
    for size in _SIZES:
        try:
            _run(model, size)
        except ConfigError:
            continue
        return size
    return None


def _run(model: nn.Module, size: int) -> None:
    """Run the network on the meta device: shapes are checked, nothing is computed."""
    twin = copy.deepcopy(model).to("meta")
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    with evaluating(twin):
        run_zeros(twin, (3 if first is None else first.in_channels, size, size))


_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The network that was asked for, the file it shall come from, and whether that file keeps its tensors' order."""

    name: str
    num_classes: int
    in_channels: int
    path: Path
    is_ordered: bool


def compare(model: nn.Module, shapes: Mapping[str, Shape], request: Request) -> tuple[Naming, tuple[Misfit, ...]]:
    """Match a checkpoint's tensors with the network's; the misfits are empty where it fits, pruned or not."""
    naming = name_tensors(shapes_of(model.state_dict()), shapes, is_ordered=request.is_ordered)
    ours = {key: shapes[theirs] for key, theirs in naming.keys.items()}
    return naming, naming.misfits or width_misfits(model, ours, num_classes=request.num_classes)


def misfit_error(
    model: nn.Module, shapes: Mapping[str, Shape], misfits: tuple[Misfit, ...], request: Request
) -> CheckpointError:
    """Say which layers do not fit first, and what to do."""
    classifier = classifier_of(model, num_classes=request.num_classes)
    first = first_convolution_of(model)
    layers = {misfit.layer for misfit in misfits}
    if layers <= {f"{classifier}.weight", f"{classifier}.bias"}:
        return _count_error(f"classifier {classifier!r}", misfits[0], request, counted="classes", dimension=0)
    if layers == {f"{first}.weight"} and misfits[0].differs_in(1):
        return _count_error(f"convolution {first!r}", misfits[0], request, counted="image channels", dimension=1)
    shown = [f"{misfit.layer}: expected {misfit.expected}, got {misfit.got}" for misfit in misfits[:_SHOWN]]
    more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
    return CheckpointError(
        f"checkpoint {request.path} does not fit {request.name}: {'; '.join(shown)}{more}", cure=_cure(shapes, request)
    )


def _count_error(what: str, misfit: Misfit, request: Request, *, counted: str, dimension: int) -> CheckpointError:
    expected, got = misfit.shapes[0][dimension], misfit.shapes[1][dimension]
    some = f"name all {got} in data.classes to score some, " if counted == "classes" and got > expected else ""
    return CheckpointError(
        f"checkpoint {request.path}: {what}",
        expected=f"{expected} {counted}",
        got=f"{got}",
        cure=f"use data of {got} {counted}, {some}or a checkpoint trained on {expected}",
    )


def _cure(shapes: Mapping[str, Shape], request: Request) -> str:
    fitting = fitting_names(shapes, request, names=model_names())[:_SHOWN]
    if not fitting:
        return "name the network it was trained with; one of your own is named package.module:callable"
    reason = ""
    if f"{request.name}_a" in fitting:
        reason = "it has no shortcut weights: "
    if request.name in {f"{one}_a" for one in fitting}:
        reason = "it has shortcut weights: "
    return f"{reason}try {' or '.join(fitting)}"


_DRAWS = {"normal_", "uniform_", "trunc_normal_"} | {
    f"{one}_{drawn}_" for one in ("kaiming", "xavier") for drawn in ("normal", "uniform")
}
# On the meta device there is nothing to write, and each takes longer than making the network's tensors.
_WRITES = {f"{one}_" for one in ("fill", "zero", "ones", "zeros", "constant")} | _DRAWS


class _Structure(TorchFunctionMode):
    """Build networks without drawing weights, on the meta device.

    Numbers that are written out stay off it: torchvision's RegNets compute their widths from some.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        given = {} if kwargs is None else kwargs
        written = args[0] if args else given.get("tensor")
        if getattr(func, "__name__", "") in _WRITES and isinstance(written, Tensor) and written.is_meta:
            return written
        usual = {"device": "cpu"} if func in {torch.arange, torch.tensor} else {}
        return func(*args, **{**usual, **given})


class Undrawn(TorchFunctionMode):
    """Build networks without drawing the weights that a file is about to give: of large ones most of the time."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        given = {} if kwargs is None else kwargs
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def fitting_names(shapes: Mapping[str, Shape], request: Request, *, names: Iterable[str]) -> list[str]:
    """Return the networks of these that a checkpoint fits: of its exact widths, else those it is pruned from."""
    exact: list[str] = []
    wider: list[str] = []
    for name in names:
        with torch.device("meta"), _Structure():
            model = build_model(name, num_classes=request.num_classes, in_channels=request.in_channels)
        naming, misfits = compare(model, shapes, request)
        if misfits:
            continue
        network = shapes_of(model.state_dict())
        is_exact = all(network[key] == shapes[theirs] for key, theirs in naming.keys.items())
        (exact if is_exact else wider).append(name)
    return exact or wider

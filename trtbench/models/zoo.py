"""Networks by name: our own, torchvision's, timm's, or any callable of the user's.

torchvision is imported where a network of it is asked for: with it comes torch's compiler, which takes as long as torch
itself, and a worker process of PyTorch is started three times for each engine.
"""

from __future__ import annotations

import difflib
import importlib
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import Tensor, nn

from trtbench import _optional
from trtbench.errors import ConfigError
from trtbench.records import AsTheyAre

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from trtbench.records import Preprocessing


Shortcut = Literal["A", "B"]
Stem = Literal["3x3", "3x3-pool", "7x7-pool"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a projecting shortcut (option B): identity, or 1x1 convolution and BatchNorm."""

    def __init__(self, in_width: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = self._shortcut(in_width, width, stride=stride)

    def _shortcut(self, in_width: int, width: int, *, stride: int) -> nn.Module | None:
        if stride == 1 and in_width == width:
            return None
        return nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def residual(self, x: Tensor) -> Tensor:
        """Return what the block adds to its shortcut, before the last ReLU."""
        out: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(self.residual(x) + shortcut)
        return out


class PaddedBlock(BasicBlock):
    """Two 3x3 convolutions and a shortcut without parameters (option A): subsample, then pad both sides with zeros."""

    def _shortcut(self, in_width: int, width: int, *, stride: int) -> nn.Module | None:  # noqa: ARG002  same seam
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, width, H / stride, W / stride)."""
        out: Tensor = self.relu(self.residual(x) + self._padded(x))
        return out

    def _padded(self, x: Tensor) -> Tensor:
        # The widths are read off the convolutions: they follow a pruner and a rebuild, and stay constants in a trace.
        missing = self.conv2.out_channels - self.conv1.in_channels
        stride = int(self.conv1.stride[0])
        if stride > 1:
            x = x[:, :, ::stride, ::stride]
        return F.pad(x, (0, 0, 0, 0, missing // 2, missing - missing // 2)) if missing else x


class ResNet(nn.Module):
    """A stem, one stage of basic blocks per width (the first at stride 1, the others at 2), average pool, classifier.

    Args:
        widths: channels per stage; the stem has as many as the first stage.
        stem: "3x3" at stride 1, "3x3-pool" with a 3x3 max-pool at stride 2 behind it, "7x7-pool" (ImageNet) at stride 2
            with the same pool.
        shortcut: option A or B of the paper.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        widths: Sequence[int],
        stem: Stem,
        shortcut: Shortcut,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if stem == "7x7-pool" else (3, 1)
        self.conv1 = nn.Conv2d(in_channels, widths[0], kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "3x3" else nn.MaxPool2d(3, 2, padding=1)
        self.stages = tuple(f"layer{number}" for number in range(1, len(widths) + 1))
        in_widths = (widths[0], *widths)
        for number, name in enumerate(self.stages):
            stage = _stage(
                in_widths[number],
                widths[number],
                count=blocks[number],
                stride=1 if number == 0 else 2,
                block=PaddedBlock if shortcut == "A" else BasicBlock,
            )
            self.add_module(name, stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        out = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self.stages:
            out = self.get_submodule(name)(out)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(out), 1))
        return logits


def _stage(in_width: int, width: int, *, count: int, stride: int, block: type[BasicBlock]) -> nn.Sequential:
    first = block(in_width, width, stride=stride)
    return nn.Sequential(first, *(block(width, width, stride=1) for _ in range(count - 1)))


def initialise(model: nn.Module) -> None:
    """Draw convolutions from Kaiming's normal distribution (fan out, He et al. 2015) with torch's global generator."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def cifar_resnet(depth: int, *, shortcut: Shortcut, num_classes: int, in_channels: int) -> ResNet:
    """Build the CIFAR network of 6n + 2 layers: three stages of n blocks with 16, 32 and 64 channels."""
    count = (depth - 2) // 6
    return ResNet(
        blocks=(count,) * 3,
        widths=(16, 32, 64),
        stem="3x3",
        shortcut=shortcut,
        num_classes=num_classes,
        in_channels=in_channels,
    )


def resnet18(*, stem: Stem, num_classes: int, in_channels: int) -> ResNet:
    """Build ResNet-18: four stages of two blocks with 64 to 512 channels."""
    return ResNet(
        blocks=(2, 2, 2, 2),
        widths=(64, 128, 256, 512),
        stem=stem,
        shortcut="B",
        num_classes=num_classes,
        in_channels=in_channels,
    )


def protected_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the layers whose output channels no pruner may remove: the residual stream of option A.

    Zero-padding puts channel i of one stage at i + pad in the next. A dependency graph sees an element-wise operation
    there and would couple channel i with channel i. Hand these layers to the pruner as `ignored_layers`; the inner
    channels of each block remain free. Empty for every other network.
    """
    blocks = [module for module in model.modules() if isinstance(module, PaddedBlock)]
    if not blocks:
        return ()
    stem = [module for module in model.modules() if isinstance(module, ResNet)]
    return (*(module.conv1 for module in stem), *(block.conv2 for block in blocks))


# (expansion, channels, repeats, stride) per stage: Sandler et al., "MobileNetV2" (2018), table 2.
_IMAGENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# The field's table for 32x32: two halvings fewer, so that 4x4 pixels and not one reach the last stage.
_CIFAR_STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), *_IMAGENET_STAGES[2:])


def _mobilenet_v2(*, num_classes: int, stages: tuple[tuple[int, ...], ...] = _IMAGENET_STAGES) -> nn.Module:
    """Build MobileNetV2, by default with ImageNet's strides: five halvings, so that one pixel is left of 32x32."""
    from torchvision.models import MobileNetV2

    model: nn.Module = MobileNetV2(num_classes=num_classes, inverted_residual_setting=[list(row) for row in stages])
    return model


def _mobilenet_v2_cifar(*, num_classes: int) -> nn.Module:
    """Build MobileNetV2 with stride 1 in the first convolution and in the first stage that halves."""
    model = _mobilenet_v2(num_classes=num_classes, stages=_CIFAR_STAGES)
    stem = model.get_submodule("features.0.0")
    stem.stride = (1, 1)  # type: ignore[assignment]  # it is a convolution
    return model


_SHORTCUTS: Mapping[str, Shortcut] = {"": "B", "_a": "A"}
_OWN: Mapping[str, Callable[..., nn.Module]] = {
    **{
        f"resnet{depth}{suffix}": partial(cifar_resnet, depth, shortcut=shortcut)
        for suffix, shortcut in _SHORTCUTS.items()
        for depth in (20, 32, 44, 56)
    },
    "resnet18": partial(resnet18, stem="3x3-pool"),
    "resnet18_3x3": partial(resnet18, stem="3x3"),
    "resnet18_imagenet": partial(resnet18, stem="7x7-pool"),
}
# torchvision's networks take no in_channels: their first convolution is replaced.
_FOREIGN: Mapping[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v2_cifar": _mobilenet_v2_cifar,
}
_FREE_BATCH = "{0: 'batch'}"
_FORMS = "a name of the zoo, torchvision:NAME, timm:NAME or package.module:callable"


def model_names() -> tuple[str, ...]:
    """Return the names of the zoo's own networks."""
    return tuple(sorted({*_OWN, *_FOREIGN}))


def build_model(name: str, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build a network with fresh weights, in training mode on the CPU.

    The initial weights come from torch's global generator: call `torch.manual_seed` before, for equal weights.

    Args:
        name: a name of the zoo, `torchvision:NAME`, `timm:NAME`, or `package.module:callable`, which is called with
            `num_classes` and, where the images have other than 3 channels, `in_channels`.
        num_classes: logits.
        in_channels: channels of the images.

    Raises:
        ConfigError: no such network, or it cannot be built so; the message names the nearest names.
        CapabilityError: timm is asked for and absent.
    """
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise ConfigError(f"model {name!r}: {what}", expected="at least 1", got=str(value), cure=f"raise {what}")
    source, colon, rest = name.partition(":")
    if not colon:
        return _own(name, num_classes=num_classes, in_channels=in_channels)
    if source == "onnx":
        raise ConfigError(
            f"model {name!r}",
            expected="a network with PyTorch source",
            got="an ONNX file",
            cure="score, calibrate, build or bench it as it is; to train or prune, name its network: " + _FORMS,
        )
    builder = {"torchvision": _torchvision, "timm": _timm}.get(source, partial(_callable, module_name=source))
    return builder(rest, num_classes=num_classes, in_channels=in_channels)


def export_line(name: str, fit: Preprocessing, *, num_classes: int | None, checkpoint: Path | None) -> str:
    """Return the shell line that writes a network as network.onnx, whatever goes in and comes out.

    Args:
        name: as `build_model` takes it.
        fit: of pictures, which are its one argument, or the tensors that it takes by name.
        num_classes: what it is called with, where there are classes.
        checkpoint: its weights, a state dict.
    """
    source, _, rest = name.rpartition(":")
    module, builder, called = {
        "": ("trtbench.models", "build_model", [repr(rest)]),
        "torchvision": ("torchvision.models", "get_model", [repr(rest)]),
        "timm": ("timm", "create_model", [repr(rest)]),
    }.get(source, (source, rest, []))
    called += [] if num_classes is None else [f"num_classes={num_classes}"]
    weights = f"m.load_state_dict(torch.load({str(checkpoint)!r}, map_location='cpu')); " if checkpoint else ""
    if isinstance(fit, AsTheyAre):
        zeros = [f"{one.name!r}: torch.zeros{(2, *one.shape)}.to(torch.{one.dtype})" for one in fit.tensors]
        given = f"kwargs={{{', '.join(zeros)}}}"
        free = f"{{{', '.join(f'{one.name!r}: {_FREE_BATCH}' for one in fit.tensors)}}}"
    else:
        given, free = f"(torch.zeros{(2, *fit.input_shape)},)", f"({_FREE_BATCH},)"
    return (
        f'python -c "import torch; from {module} import {builder}; m = {builder}({", ".join(called)}); {weights}'
        f"torch.onnx.export(m.eval(), {given}, f='network.onnx', dynamic_shapes={free})\""
    )


def _own(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    if name in _OWN:
        return _OWN[name](num_classes=num_classes, in_channels=in_channels)
    if name in _FOREIGN:
        return _with_input_channels(_FOREIGN[name](num_classes=num_classes), in_channels)
    raise _unknown(name, known=model_names(), expected=_FORMS)


def _torchvision(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown(name, known=known, prefix="torchvision:", expected="a classification network of torchvision")
    # Their auxiliary classifiers would turn the output of training into a tuple.
    extra = {"init_weights": True, "aux_logits": False} if name in {"googlenet", "inception_v3"} else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)
    return _with_input_channels(model, in_channels)


def _timm(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    timm = _optional.load("timm")
    if not timm.is_model(name):
        raise _unknown(name, known=timm.list_models(), prefix="timm:", expected="a network of timm")
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels)
    return model


def _callable(name: str, *, module_name: str, num_classes: int, in_channels: int) -> nn.Module:
    what = f"model '{module_name}:{name}'"
    function = attribute(name, module_name=module_name, what=what)
    arguments = {"num_classes": num_classes} | ({} if in_channels == 3 else {"in_channels": in_channels})  # noqa: PLR2004  RGB
    try:
        model = function(**arguments)
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(
            f"{what}: the call with {', '.join(f'{key}={value}' for key, value in arguments.items())}",
            expected="an nn.Module",
            got=f"{type(error).__name__}: {error}",
            cure="mend the callable, or name one that takes these keywords",
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            what, expected="an nn.Module", got=type(model).__name__, cure="return the network from the callable"
        )
    return model


def attribute(name: str, *, module_name: str, what: str) -> Callable[..., Any]:
    """Import a callable of a module, which runs the module's code.

    Raises:
        ConfigError: it cannot be imported, or there is none of that name.
    """
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's own code, which may raise anything
        raise ConfigError(
            what,
            expected=f"an importable module {module_name!r} ({_FORMS})",
            got=f"{type(error).__name__}: {error}",
            cure="install it, or put its folder on PYTHONPATH",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise _unknown(name, known=known, prefix=f"{module_name}:", expected=f"a callable of {module_name!r}")
    found: Callable[..., Any] = function
    return found


def _unknown(name: str, *, known: list[str] | tuple[str, ...], expected: str, prefix: str = "") -> ConfigError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or sorted(known)[:12]
    cure = "nearest names: " + ", ".join(prefix + one for one in near) if near else "check the name"
    return ConfigError(f"model {prefix + name!r}", expected=expected, got="an unknown name", cure=cure)


def _with_input_channels(model: nn.Module, in_channels: int) -> nn.Module:
    """Replace the first convolution of a network made for RGB images by one of the same geometry."""
    name, first = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    if first.in_channels == in_channels:
        return model
    parent, _, leaf = name.rpartition(".")
    replacement = nn.Conv2d(
        in_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # torch types the stored pair as an open tuple
        first.stride,  # type: ignore[arg-type]  # as above
        first.padding,  # type: ignore[arg-type]  # as above
        bias=first.bias is not None,
    )
    setattr(model.get_submodule(parent), leaf, replacement)
    return model

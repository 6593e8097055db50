"""What a network is made from: images, a model, a training budget."""

from __future__ import annotations

import difflib
import re
from pathlib import Path  # noqa: TC003  pydantic resolves the fields at run time
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trtbench.records import LEAST_CROP, LEAST_STD, MAX_SIDE, Interpolation
from trtbench.suite.base import Batch, Fraction, Part, PositiveFraction, Seed, Weight

# The networks of the zoo, by name; a test holds it equal to models.model_names(), which needs torch.
_RESNETS = ("resnet18", "resnet18_3x3", "resnet18_imagenet")
ZOO = (
    *("mobilenet_v2", "mobilenet_v2_cifar", *_RESNETS),
    *(f"resnet{depth}{suffix}" for depth in (20, 32, 44, 56) for suffix in ("", "_a")),
)

_CHANNELS = 3
_WITHOUT_ANTIALIAS = ("nearest", "bilinear", "bicubic")
_SOURCE = re.compile(r"digits|cifar100?(:.+)?|(folder|images|npz):.+")


def _as_size(value: Any) -> Any:
    sides = value if isinstance(value, (list, tuple)) else [value]
    if not 1 <= len(sides) <= 2 or any(type(side) is not int or not 0 < side <= MAX_SIDE for side in sides):  # noqa: PLR2004  height, width
        raise ValueError(f"a number of pixels greater than 0, or height and width, of at most {MAX_SIDE}")
    return sides[0] if len(set(sides)) == 1 else tuple(sides)


ImageSize = Annotated[int | tuple[int, int], BeforeValidator(_as_size)]


class AugmentConfig(Part):
    """Whole-batch augmentation of training images."""

    crop_padding: Annotated[int, Field(ge=0, le=MAX_SIDE)] = Field(
        4, description="reflect-pad by this many pixels and crop back; 0 is off"
    )
    flip: bool = Field(default=True, description="mirror half of the images; off for digits")
    cutout: Annotated[int, Field(ge=0, le=MAX_SIDE)] = Field(
        0, description="side of the square that is blanked, in pixels; 0 is off"
    )
    mixup: Weight = Field(0.0, description="Beta(a, a) of the share that images are mixed by; 0 is off")
    cutmix: Weight = Field(
        0.0, description="Beta(a, a) of the area that stays; with mixup each batch gets one of both; 0 is off"
    )


class DistillConfig(Part):
    """Knowledge distillation from the dense teacher (Hinton et al. 2015)."""

    temperature: Annotated[float, Field(gt=0, le=1000)] = Field(
        4.0, description="softens the logits of teacher and student"
    )
    alpha: PositiveFraction = Field(0.9, description="weight of the teacher's term; the rest is cross-entropy")


class TrainConfig(Part):
    """One training budget."""

    epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        100, description="passes over the training images; 0 trains nothing"
    )
    batch_size: Batch = Field(128, description="images of a step")
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam", "adadelta"] = Field(
        "sgd", description="what turns gradients into steps"
    )
    loss: Literal["cross-entropy", "mse", "l1", "smooth-l1", "nll", "kl-div"] = Field(
        "cross-entropy", description="what is minimised"
    )
    lr: Annotated[float, Field(gt=0, le=1000)] = Field(0.1, description="peak learning rate")
    momentum: Fraction = Field(0.9, description="of sgd and rmsprop; first beta of adam, adamw and nadam")
    nesterov: bool = Field(default=True, description="sgd: look ahead by the momentum")
    weight_decay: Weight = Field(5e-4, description="weight decay; biases and norms have none")
    schedule: Literal["cosine", "one-cycle", "multistep", "constant"] = Field(
        "cosine", description="how the learning rate goes on from its peak"
    )
    milestones: tuple[PositiveFraction, ...] = Field(
        (0.5, 0.75), max_length=100, description="multistep: shares of the epochs"
    )
    gamma: PositiveFraction = Field(0.1, description="multistep: factor at each milestone")
    label_smoothing: Fraction = Field(0.0, description="share of the target spread over all classes")
    l1: Weight = Field(0.0, description="weight of the sum of all parameters' magnitudes")
    norm_l1: Weight = Field(
        0.0, description="weight of the sum of the batch norms' scales: sparse learning before channel pruning"
    )
    sam: Weight = Field(0.0, description="radius rho of sharpness-aware minimisation; 0 is off")
    ema: Fraction = Field(0.0, description="decay a step of the moving average that is kept; 0 is off")
    swa: Fraction | None = Field(None, description="share of the epochs after which their weights are averaged")
    augment: AugmentConfig = Field(AugmentConfig(), description="how the images are changed")
    distill: DistillConfig | None = Field(None, description="learn from the dense network too")
    amp: Literal["off", "bf16", "fp16"] = Field(
        "off", description="mixed precision: fp16 on CUDA only; bf16 gains on CPUs with AVX-512 BF16 or AMX"
    )
    channels_last: bool = Field(default=False, description="memory format of training, on CUDA only")
    seed: Seed = Field(0, description="seed of weights, order and augmentation")

    @model_validator(mode="after")
    def _one_average(self) -> TrainConfig:
        if self.ema and self.swa is not None:
            raise ValueError("ema or swa, not both")
        if self.sam and self.amp == "fp16":
            raise ValueError("sam with amp off or bf16: fp16 scales its two gradients apart")
        return self


class DataConfig(Part):
    """Where the images come from, and how the training set is split."""

    source: str = Field(
        "digits",
        description="digits | cifar10[:ROOT] | cifar100[:ROOT] | folder:PATH (a folder or an archive)"
        " | images:PATH (a folder of images without labels)"
        " | npz:PATH (an array for each input of a network, samples along the first axis)",
    )
    size: ImageSize | None = Field(
        None, description="pixels a side that the network sees, or height,width; the weights' own by default, else 32"
    )
    crop_ratio: Annotated[float, Field(ge=LEAST_CROP, le=1)] | None = Field(
        None, description="folder: resample until size / this is covered and cut out the middle; else straight to size"
    )
    interpolation: Interpolation | None = Field(None, description="folder: of resampling; bilinear by default")
    antialias: bool | None = Field(None, description="folder: of resampling; off as in OpenCV, on by default")
    exif_rotation: bool = Field(default=False, description="folder: rotate as the camera noted")
    classes: Path | None = Field(
        None, description="folder: a file that names all classes in the order of the logits, a line each or as JSON"
    )
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="share of the training images, stratified")
    mean: tuple[Annotated[float, Field(ge=-1000, le=1000)], ...] | None = Field(
        None, description="per-channel mean in [0, 1]; the weights' or the source's own by default"
    )
    std: tuple[Annotated[float, Field(le=1000)], ...] | None = Field(
        None, description="per-channel deviation; the weights' or the source's own by default"
    )
    download: bool = Field(default=False, description="let torchvision download CIFAR where it is missing")
    seed: Seed = Field(0, description="seed of the train/validation split")

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, source: str) -> str:
        if not _SOURCE.fullmatch(source):
            raise ValueError("digits, cifar10[:ROOT], cifar100[:ROOT], folder:PATH, images:PATH or npz:PATH")
        return source

    @property
    def is_labelled(self) -> bool:
        """Whether its images come with labels."""
        return self.source.partition(":")[0] not in {"images", "npz"}

    @model_validator(mode="after")
    def _pictures_are_framed(self) -> DataConfig:
        if not self.source.startswith("folder:"):
            is_framed = self.source.startswith("images:")
            keys = ("classes", *(() if is_framed else ("crop_ratio", "interpolation", "antialias", "exif_rotation")))
            keys = (*keys, "size", "mean", "std") if self.source.startswith("npz:") else keys
            if said := [key for key in keys if getattr(self, key) not in {None, False}]:
                raise ValueError(f"{', '.join(said)} with folder:PATH alone; {self.source} has its own")
        if self.antialias is False and self.interpolation not in {None, *_WITHOUT_ANTIALIAS}:
            raise ValueError(f"{', '.join(_WITHOUT_ANTIALIAS)} where antialias is off, not {self.interpolation}")
        return self

    @model_validator(mode="after")
    def _mean_and_std_belong_together(self) -> DataConfig:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std together or neither")
        if self.mean is not None and self.std is not None and {len(self.mean), len(self.std)} != {_CHANNELS}:
            raise ValueError(f"{_CHANNELS} numbers in mean and in std, one per colour channel")
        if self.std is not None and min(self.std, default=0.0) < LEAST_STD:
            raise ValueError("every std greater than 0")
        return self


class ModelConfig(Part):
    """The dense network: an architecture and where its weights come from."""

    name: str = Field(
        "resnet20", description="resnet20 | torchvision:NAME | timm:NAME | package.module:callable | onnx:PATH"
    )
    checkpoint: Path | None = Field(None, description="trained weights; a suite without them trains first")
    weights_from: str | None = Field(
        None, description="of a checkpoint of several networks, the key or the prefix of the one that is meant"
    )
    dense: bool = Field(default=False, description="let the zero weights of a pruned checkpoint learn too")
    train: TrainConfig | None = Field(None, description="the budget of training from scratch")

    @property
    def code(self) -> str:
        """The `package.module:callable` that is run to build the network; "" where that is no code of the user's."""
        source, colon, _ = self.name.partition(":")
        return self.name if colon and source not in {"torchvision", "timm", "onnx"} else ""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if ":" in name or name in ZOO:
            return name
        nearest = difflib.get_close_matches(name, ZOO, n=3) or ZOO
        raise ValueError(f"{', '.join(nearest)}, torchvision:NAME, timm:NAME, package.module:callable or onnx:PATH")

    @model_validator(mode="after")
    def _weights_come_from_somewhere(self) -> ModelConfig:
        if self.checkpoint is not None and self.train is not None:
            raise ValueError("a checkpoint or a training budget, not both")
        if self.dense and self.checkpoint is None:
            raise ValueError("a checkpoint with dense: fresh weights have no zeros")
        if self.weights_from is not None and self.checkpoint is None:
            raise ValueError("a checkpoint with weights_from, which names one of its networks")
        if self.checkpoint is None and self.train is None and not self.name.startswith("onnx:"):
            raise ValueError("a checkpoint or a training budget: untrained weights answer nothing")
        return self

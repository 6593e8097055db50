"""The parts of a suite: frozen models that refuse what cannot be; no defaults live anywhere else."""

from __future__ import annotations

import difflib
import re
from pathlib import Path  # noqa: TC003  pydantic resolves the fields at run time
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]

Precision = Literal["fp32", "int8"]
Objective = Literal["p50_ms", "ms_per_image", "engine_bytes"]
Method = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]


# The networks of the zoo, by name; a test holds it equal to models.model_names(), which needs torch.
ZOO = (
    "mobilenet_v2",
    "mobilenet_v2_cifar",
    "resnet18",
    "resnet18_3x3",
    "resnet18_imagenet",
    "resnet20",
    "resnet20_a",
    "resnet32",
    "resnet32_a",
    "resnet44",
    "resnet44_a",
    "resnet56",
    "resnet56_a",
)


_CHANNELS = 3
_SOURCE = re.compile(r"digits|cifar100?(:.+)?|folder:.+")


def _unique(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(items)) < len(items):
        raise ValueError("each only once")
    return items


class Part(BaseModel):
    """A part of the suite: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


AnyPart = TypeVar("AnyPart", bound=Part)


class DataConfig(Part):
    """Where the images come from, and how the training set is split."""

    source: str = Field(
        "digits", description="digits | cifar10[:ROOT] | cifar100[:ROOT] | folder:PATH (a folder or an archive)"
    )
    size: PositiveInt = Field(32, description="height and width the network sees, in pixels")
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="share of the training images, stratified")
    mean: tuple[float, ...] | None = Field(None, description="per-channel mean in [0, 1]; the source's own by default")
    std: tuple[float, ...] | None = Field(None, description="per-channel deviation; the source's own by default")
    download: bool = Field(default=False, description="let torchvision download CIFAR where it is missing")
    seed: int = Field(0, description="seed of the train/validation split")

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, source: str) -> str:
        if not _SOURCE.fullmatch(source):
            raise ValueError("digits, cifar10[:ROOT], cifar100[:ROOT] or folder:PATH")
        return source

    @model_validator(mode="after")
    def _mean_and_std_belong_together(self) -> DataConfig:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std together or neither")
        if self.mean is not None and self.std is not None and {len(self.mean), len(self.std)} != {_CHANNELS}:
            raise ValueError(f"{_CHANNELS} numbers in mean and in std, one per colour channel")
        if self.std is not None and min(self.std, default=0.0) <= 0:
            raise ValueError("every std greater than 0")
        return self


class AugmentConfig(Part):
    """Whole-batch augmentation of training images."""

    crop_padding: Annotated[int, Field(ge=0)] = Field(
        4, description="reflect-pad by this many pixels and crop back; 0 is off"
    )
    flip: bool = Field(default=True, description="mirror half of the images; off for digits")
    cutout: Annotated[int, Field(ge=0)] = Field(
        0, description="side of the square that is blanked, in pixels; 0 is off"
    )


class DistillConfig(Part):
    """Knowledge distillation from the dense teacher (Hinton et al. 2015)."""

    temperature: PositiveFloat = 4.0
    alpha: PositiveFraction = Field(0.9, description="weight of the teacher's term; the rest is cross-entropy")


class TrainConfig(Part):
    """One training budget."""

    epochs: Annotated[int, Field(ge=0)] = 100
    batch_size: PositiveInt = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFloat = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "one-cycle", "multistep", "constant"] = "cosine"
    milestones: tuple[PositiveFraction, ...] = Field((0.5, 0.75), description="multistep: shares of the epochs")
    gamma: PositiveFraction = Field(0.1, description="multistep: factor at each milestone")
    label_smoothing: Fraction = 0.0
    augment: AugmentConfig = AugmentConfig()
    distill: DistillConfig | None = None
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="mixed precision, on CUDA only")
    channels_last: bool = Field(default=False, description="memory format of training, on CUDA only")
    seed: int = 0


class ModelConfig(Part):
    """The dense network: an architecture and where its weights come from."""

    name: str = Field(
        "resnet20", description="resnet20 | torchvision:NAME | timm:NAME | package.module:callable | onnx:PATH"
    )
    checkpoint: Path | None = Field(None, description="trained weights; without them `train` runs first")
    train: TrainConfig | None = Field(None, description="the budget of training from scratch")

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
        if self.checkpoint is None and self.train is None and not self.name.startswith("onnx:"):
            raise ValueError("a checkpoint or a training budget: untrained weights answer nothing")
        return self


class DenseVariant(Part):
    """The network as it is; with `fine_tune` it is the control every compressed variant is compared with."""

    kind: Literal["dense"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    fine_tune: bool = False


class ChannelsVariant(Part):
    """Structured channel pruning (torch-pruning); exactly one of `ratio`, `macs`, `params` is the target."""

    kind: Literal["channels"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    ratio: Fraction | None = Field(None, description="share of the channels of each layer that go")
    macs: PositiveFraction | None = Field(None, description="target: MACs as a share of the dense network's")
    params: PositiveFraction | None = Field(None, description="target: parameters as a share of the dense network's")
    importance: Literal["l2", "l1", "bn-scale", "taylor", "lamp"] = "l2"
    scope: Literal["uniform", "global"] = "uniform"
    steps: PositiveInt = Field(1, description="iterative steps to the target")
    round_to: PositiveInt | None = Field(
        None, description="widths become multiples of this; 16 where int8 is built, else 8"
    )
    fine_tune: bool = True

    @model_validator(mode="after")
    def _one_target(self) -> ChannelsVariant:
        if sum(target is not None for target in (self.ratio, self.macs, self.params)) != 1:
            raise ValueError("exactly one of ratio, macs, params")
        return self


Variant = Annotated[DenseVariant | ChannelsVariant, Field(discriminator="kind")]


class ExportConfig(Part):
    """PyTorch to ONNX."""

    exporter: Literal["dynamo", "torchscript"] = "dynamo"
    opset: Annotated[int, Field(ge=13, le=24)] = 20


class CalibrationConfig(Part):
    """Which training images calibrate INT8, and how their ranges become scales."""

    per_class: PositiveInt | None = Field(None, description="images of each class")
    total: PositiveInt | None = Field(None, description="images in all, spread evenly over the classes")
    method: Method = Field("mse", description="how activations become scales; mse has the least error on validation")
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    weights: Literal["absmax", "mse"] = Field("absmax", description="clip of each output channel of a weight")
    equalise: bool = Field(default=False, description="cross-layer equalisation, for depthwise networks")
    rounding: Literal["nearest", "gptq"] = Field("nearest", description="gptq: weights by layer reconstruction")
    bias_correction: bool = Field(default=False, description="take the mean shift of each channel off its bias")
    exclude: Annotated[tuple[str, ...], AfterValidator(_unique)] = Field(
        (), description="names of ONNX nodes kept in higher precision; `trtbench explain-int8` finds them"
    )
    allow_short: bool = Field(default=False, description="take classes that have too few images short")
    batch_size: PositiveInt = Field(8, description="small: the activations of a batch stay in the processor's cache")
    seed: int = 0
    manifest: Path | None = Field(None, description="a committed manifest to use instead of sampling")

    @model_validator(mode="after")
    def _one_size(self) -> CalibrationConfig:
        if self.per_class is not None and self.total is not None:
            raise ValueError("per_class or total, not both")
        return self


class EngineConfig(Part):
    """One runtime and the precisions it builds; `auto` is the best there is here: ONNX Runtime's CPU engine so far."""

    backend: Literal["auto", "onnxruntime-cpu"] = "auto"
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1), AfterValidator(_unique)] = ("fp32", "int8")


class BenchConfig(Part):
    """How latency is measured; names follow trtexec."""

    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_unique)] = (1, 32)
    warm_up: Annotated[float, Field(ge=0)] = Field(200, description="milliseconds, and at least 3 inferences")
    duration: PositiveFloat = Field(3.0, description="seconds a row is timed, at least")
    iterations: Annotated[int, Field(ge=30)] = Field(30, description="samples a row keeps, at least")
    block_ms: PositiveFloat = Field(50.0, description="length of one interleaved block")
    threads: PositiveInt = Field(1, description="intra-op threads of CPU engines")
    spin: bool = Field(default=False, description="let CPU threads spin between operators")
    baselines: tuple[Literal["eager"], ...] = ("eager",)
    ort_placement: bool = Field(default=True, description="time once the Q/DQ placement that ONNX Runtime's CPU fuses")


class DecisionConfig(Part):
    """The constraints and the objective of the recommendation."""

    max_drop_pp: Annotated[float, Field(ge=0)] = Field(1.0, description="largest accepted drop in top-1, proven")
    objective: Objective = "p50_ms"
    batch_size: PositiveInt = 1
    max_engine_mb: PositiveFloat | None = Field(None, description="MB = 10^6 bytes")


class Suite(Part):
    """One question: these variants of this network, on these images, on this machine."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    data: DataConfig = DataConfig()
    model: ModelConfig
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    fine_tune: TrainConfig = TrainConfig(epochs=10, lr=0.01)
    export: ExportConfig = ExportConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    engines: Annotated[tuple[EngineConfig, ...], Field(min_length=1)] = (EngineConfig(),)
    bench: BenchConfig = BenchConfig()
    decision: DecisionConfig = DecisionConfig()
    _written: dict[tuple[str, str], str] = PrivateAttr(default_factory=dict)
    _origin: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Suite:
        names = [variant.name for variant in self.variants]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"unique variant names, but {', '.join(twice)} stands twice")
        if self.decision.batch_size not in self.bench.batch_sizes:
            raise ValueError(
                f"decision.batch_size {self.decision.batch_size} among bench.batch_sizes {list(self.bench.batch_sizes)}"
            )
        return self

    def as_written(self) -> dict[str, Any]:
        """Return the whole suite as JSON values, its paths as the file has them: no machine's own folders."""
        found = self.model_dump(mode="json")
        for (section, key), value in self._written.items():
            found[section][key] = value
        return found

    @property
    def origin(self) -> str:
        """What `trtbench build` takes to build this suite again: its file, or the name of a shipped one."""
        return self._origin or self.name

    @property
    def builds_int8(self) -> bool:
        """Whether any engine of the suite is INT8."""
        return any("int8" in engine.precisions for engine in self.engines)

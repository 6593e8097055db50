"""The training budget of a suite: how long, by what, on images changed how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trtbench.suite.base import Fraction, Part, PositiveFloat, PositiveFraction, PositiveInt


class AugmentConfig(Part):
    """Whole-batch augmentation of training images."""

    crop_padding: Annotated[int, Field(ge=0)] = Field(
        4, description="reflect-pad by this many pixels and crop back; 0 is off"
    )
    flip: bool = Field(default=True, description="mirror half of the images; off for digits")
    cutout: Annotated[int, Field(ge=0)] = Field(
        0, description="side of the square that is blanked, in pixels; 0 is off"
    )
    mixup: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Beta(a, a) of the share that images are mixed by; 0 is off"
    )
    cutmix: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Beta(a, a) of the area that stays; with mixup each batch gets one of both; 0 is off"
    )


class DistillConfig(Part):
    """Knowledge distillation from the dense teacher (Hinton et al. 2015)."""

    temperature: PositiveFloat = 4.0
    alpha: PositiveFraction = Field(0.9, description="weight of the teacher's term; the rest is cross-entropy")


class TrainConfig(Part):
    """One training budget."""

    epochs: Annotated[int, Field(ge=0)] = 100
    batch_size: PositiveInt = 128
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam", "adadelta"] = "sgd"
    loss: Literal["cross-entropy", "mse", "l1", "smooth-l1", "nll", "kl-div"] = "cross-entropy"
    lr: PositiveFloat = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "one-cycle", "multistep", "constant"] = "cosine"
    milestones: tuple[PositiveFraction, ...] = Field((0.5, 0.75), description="multistep: shares of the epochs")
    gamma: PositiveFraction = Field(0.1, description="multistep: factor at each milestone")
    label_smoothing: Fraction = 0.0
    l1: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of the sum of all parameters' magnitudes")
    norm_l1: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the sum of the batch norms' scales: sparse learning before channel pruning"
    )
    sam: Annotated[float, Field(ge=0)] = Field(0.0, description="radius rho of sharpness-aware minimisation; 0 is off")
    ema: Fraction = Field(0.0, description="decay a step of the moving average that is kept; 0 is off")
    swa: Fraction | None = Field(None, description="share of the epochs after which their weights are averaged")
    augment: AugmentConfig = AugmentConfig()
    distill: DistillConfig | None = None
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="mixed precision, on CUDA only")
    channels_last: bool = Field(default=False, description="memory format of training, on CUDA only")
    seed: int = 0

    @model_validator(mode="after")
    def _one_average(self) -> TrainConfig:
        if self.ema and self.swa is not None:
            raise ValueError("ema or swa, not both")
        if self.sam and self.amp == "fp16":
            raise ValueError("sam with amp off or bf16: fp16 scales its two gradients apart")
        return self

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

    temperature: PositiveFloat = Field(4.0, description="softens the logits of teacher and student")
    alpha: PositiveFraction = Field(0.9, description="weight of the teacher's term; the rest is cross-entropy")


class TrainConfig(Part):
    """One training budget."""

    epochs: Annotated[int, Field(ge=0)] = Field(100, description="passes over the training images; 0 trains nothing")
    batch_size: PositiveInt = Field(128, description="images of a step")
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam", "adadelta"] = Field(
        "sgd", description="what turns gradients into steps"
    )
    loss: Literal["cross-entropy", "mse", "l1", "smooth-l1", "nll", "kl-div"] = Field(
        "cross-entropy", description="what is minimised"
    )
    lr: PositiveFloat = Field(0.1, description="peak learning rate")
    momentum: Fraction = Field(0.9, description="of sgd and rmsprop; first beta of adam, adamw and nadam")
    nesterov: bool = Field(default=True, description="sgd: look ahead by the momentum")
    weight_decay: Annotated[float, Field(ge=0)] = Field(5e-4, description="weight decay; biases and norms have none")
    schedule: Literal["cosine", "one-cycle", "multistep", "constant"] = Field(
        "cosine", description="how the learning rate goes on from its peak"
    )
    milestones: tuple[PositiveFraction, ...] = Field((0.5, 0.75), description="multistep: shares of the epochs")
    gamma: PositiveFraction = Field(0.1, description="multistep: factor at each milestone")
    label_smoothing: Fraction = Field(0.0, description="share of the target spread over all classes")
    l1: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of the sum of all parameters' magnitudes")
    norm_l1: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the sum of the batch norms' scales: sparse learning before channel pruning"
    )
    sam: Annotated[float, Field(ge=0)] = Field(0.0, description="radius rho of sharpness-aware minimisation; 0 is off")
    ema: Fraction = Field(0.0, description="decay a step of the moving average that is kept; 0 is off")
    swa: Fraction | None = Field(None, description="share of the epochs after which their weights are averaged")
    augment: AugmentConfig = Field(AugmentConfig(), description="how the images are changed")
    distill: DistillConfig | None = Field(None, description="learn from the dense network too")
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="mixed precision, on CUDA only")
    channels_last: bool = Field(default=False, description="memory format of training, on CUDA only")
    seed: int = Field(0, description="seed of weights, order and augmentation")

    @model_validator(mode="after")
    def _one_average(self) -> TrainConfig:
        if self.ema and self.swa is not None:
            raise ValueError("ema or swa, not both")
        if self.sam and self.amp == "fp16":
            raise ValueError("sam with amp off or bf16: fp16 scales its two gradients apart")
        return self

"""The training budget of a suite: how long, by what, on images changed how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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

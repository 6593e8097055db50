"""What goes in: where the images come from, and the dense network."""

from __future__ import annotations

import difflib
import re
from pathlib import Path  # noqa: TC003  pydantic resolves the fields at run time
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from trtbench.suite.base import Part, PositiveInt
from trtbench.suite.training import TrainConfig  # noqa: TC001  likewise

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

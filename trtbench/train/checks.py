"""Whether budget, data, device and network fit together, before anything is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trtbench.errors import ConfigError, DataError
from trtbench.models.counts import evaluating
from trtbench.train.evaluate import logits_of

if TYPE_CHECKING:
    from torch import nn

    from trtbench.records import Dataset
    from trtbench.suite import TrainConfig
    from trtbench.train.images import DeviceImages


def check_budget(dataset: Dataset, config: TrainConfig, device: torch.device, *, teacher: nn.Module | None) -> None:
    """Raise where a fit could not start or would not do what the budget says.

    Raises:
        ConfigError: mixed precision without CUDA, distillation without a teacher, more padding than image.
        DataError: no training or no validation images.
    """
    for name, split in (("training", dataset.train), ("validation", dataset.validation)):
        if not len(split):
            raise DataError(
                f"the {name} images of {dataset.name}", expected="at least one", got="none", cure="add images"
            )
    if config.amp != "off" and device.type != "cuda":
        raise ConfigError(
            f"train.amp: {config.amp}",
            expected="a CUDA device for mixed precision",
            got=f"device {device}",
            cure="set train.amp to off, or train on a GPU",
        )
    if config.distill is not None and teacher is None:
        raise ConfigError(
            "train.distill", expected="a teacher", got="none", cure="distil from the dense network, or remove the key"
        )
    if config.augment.crop_padding >= (size := min(dataset.train.images.shape[2:])):
        raise ConfigError(
            "train.augment.crop_padding",
            expected=f"less than the image's {size} pixels, which are reflected",
            got=str(config.augment.crop_padding),
            cure="lower it; 0 is off",
        )


def check_classes(model: nn.Module, images: DeviceImages, *, num_classes: int) -> None:
    """Run one image; a label without a logit would stop a GPU for good, with no word of the cause.

    Raises:
        ConfigError: the network has another number of logits than there are classes.
    """
    with evaluating(model), torch.no_grad():
        count = logits_of(model, images.normalised(images.pixels[:1])).shape[1]
    if count != num_classes:
        raise ConfigError(
            f"the logits of {type(model).__name__}",
            expected=f"{num_classes}, one per class of the data",
            got=str(count),
            cure="build the network with the classes of the data",
        )

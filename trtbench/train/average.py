"""Averages of a network's weights over steps (EMA) or epochs (SWA), which are scored and kept in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from trtbench.suite import TrainConfig
    from trtbench.train.images import DeviceImages

_BATCH = 256


class Average:
    """The running average of one network by a budget.

    EMA: average * decay + weights * (1 - decay) after every step, the batch norms' statistics too (Polyak and Juditsky
    1992; timm's ModelEmaV2). SWA: the mean of the weights at the ends of the epochs after a share of them, the batch
    norms measured anew on the training images (Izmailov et al. 2018, section 3.2).
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self._first_epoch = None if config.swa is None else int(config.swa * config.epochs) + 1
        decay = get_ema_multi_avg_fn(config.ema) if config.ema else None  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._average = AveragedModel(model, multi_avg_fn=decay, use_buffers=bool(config.ema))

    @classmethod
    def of(cls, model: nn.Module, config: TrainConfig) -> Average | None:
        """Return the average a budget asks for, or None."""
        return cls(model, config) if config.ema or config.swa is not None else None

    @property
    def network(self) -> nn.Module | None:
        """The averaged network; None before there is anything to average."""
        return self._average.module if int(self._average.n_averaged) else None

    def after_step(self, model: nn.Module, *, keeps_zeros: bool) -> None:
        """Take in a step."""
        if self._first_epoch is None:
            self._take(model, keeps_zeros=keeps_zeros)

    def after_epoch(self, model: nn.Module, epoch: int, images: DeviceImages, *, keeps_zeros: bool) -> None:
        """Take in an epoch, counted from 1."""
        if self._first_epoch is not None and epoch >= self._first_epoch:
            self._take(model, keeps_zeros=keeps_zeros)
            update_bn(_batches(images), self._average.module)

    def _take(self, model: nn.Module, *, keeps_zeros: bool) -> None:
        self._average.update_parameters(model)
        if keeps_zeros:  # a weight that was pruned on the way would live on in the average
            for averaged, weight in zip(self._average.module.parameters(), model.parameters(), strict=True):
                averaged.data.mul_(weight != 0)

    def state(self) -> dict[str, Tensor]:
        """Return what resuming needs."""
        return self._average.state_dict()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self._average.load_state_dict(state)


def _batches(images: DeviceImages) -> Iterator[Tensor]:
    for start in range(0, len(images), _BATCH):
        yield images.normalised(images.pixels[start : start + _BATCH])

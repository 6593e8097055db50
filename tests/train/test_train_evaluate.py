"""Prediction against a plain forward pass."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trtbench.data import normalise
from trtbench.errors import CapabilityError, ConfigError, DataError
from trtbench.train import predict
from trtbench.train.evaluate import as_device, place, score

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.records import Dataset


def test_logits_are_those_of_a_forward_pass_in_evaluation_mode(
    digits: Dataset, build: Callable[..., nn.Module]
) -> None:
    model = build(dropout=0.5).train()
    model.get_submodule("fc").eval()
    images = digits.validation.images[:50]

    logits = predict(model, images, digits.preprocessing, batch_size=50)

    assert model.training
    assert not model.get_submodule("fc").training
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(normalise(images, digits.preprocessing)))
    np.testing.assert_array_equal(logits, expected.numpy())
    assert logits.dtype == np.float32
    assert logits.shape == (50, 10)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing_but_rounding(
    digits: Dataset, build: Callable[..., nn.Module], batch_size: int
) -> None:
    model, images = build(), digits.validation.images[:20]

    logits = predict(model, images, digits.preprocessing, batch_size=batch_size)

    np.testing.assert_allclose(logits, predict(model, images, digits.preprocessing), atol=1e-5)


def test_a_score_is_the_count_and_the_loss_of_the_predictions(digits: Dataset, build: Callable[..., nn.Module]) -> None:
    model = build()
    logits = predict(model, digits.validation.images, digits.preprocessing)
    labels = digits.validation.labels
    placed = place(digits.validation, digits.preprocessing, device=torch.device("cpu"), is_channels_last=False)

    loss, correct = score(model, placed)

    assert correct == (logits.argmax(1) == labels).sum()
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    expected = (np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_no_images_are_an_error(digits: Dataset, build: Callable[..., nn.Module]) -> None:
    with pytest.raises(DataError, match="at least one"):
        predict(build(), digits.validation.images[:0], digits.preprocessing)


_Outputs = namedtuple("_Outputs", "logits aux")  # noqa: PYI024  as torchvision's networks with auxiliary classifiers do


class _Auxiliary(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda images: _Outputs(images, images), "_Outputs"),
        (lambda images: images, r"a tensor of shape \(2, 3, 8, 8\)"),
        (lambda images: images.flatten(1)[:1], r"a tensor of shape \(1, 192\)"),
    ],
)
def test_a_network_that_gives_no_logits_is_a_configuration_error(
    digits: Dataset, answer: Callable[[Tensor], Any], got: str
) -> None:
    with pytest.raises(ConfigError, match=rf"expected one tensor of logits \(2, classes\), got {got}"):
        predict(_Auxiliary(answer), digits.validation.images[:2], digits.preprocessing)


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:x"])
def test_an_unknown_device_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError, match="cuda:N"):
        as_device(name)


def test_an_absent_gpu_is_a_missing_capability() -> None:
    with pytest.raises(CapabilityError, match="a CUDA device that PyTorch sees"):
        as_device(f"cuda:{torch.cuda.device_count()}")


def test_a_device_may_be_given_as_torch_knows_it() -> None:
    assert as_device(torch.device("cpu")) == as_device("cpu") == torch.device("cpu")

"""The loss against NumPy and SciPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor, nn

from trtbench.suite import DistillConfig, TrainConfig
from trtbench.train.augment import Labels, loss_on, penalties

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
_TEACHER = np.array([[1.0, 1.0, -1.0], [-3.0, 2.0, 0.0]])
_LABELS = np.array([0, 2])


def _loss(logits: NDArray[np.float64] = _LOGITS, **settings: Any) -> float:
    return _loss_of(torch.tensor(logits), **settings).item()


def _loss_of(
    logits: Tensor, *, labels: Labels | None = None, teacher_logits: Tensor | None = None, **keys: Any
) -> Tensor:
    labels = labels or Labels(first=torch.tensor(_LABELS))
    return loss_on(logits, labels, TrainConfig(**keys), teacher_logits=teacher_logits)


def test_without_settings_it_is_cross_entropy() -> None:
    assert _loss() == pytest.approx(-log_softmax(_LOGITS, axis=1)[[0, 1], _LABELS].mean())


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    target = 0.9 * np.eye(3)[_LABELS] + 0.1 / 3

    expected = -(target * log_softmax(_LOGITS, axis=1)).sum(1).mean()
    assert _loss(label_smoothing=0.1) == pytest.approx(expected)


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (4.0, 0.9), (2.0, 0.3)])
def test_distillation_adds_the_divergence_from_the_teacher(temperature: float, alpha: float) -> None:
    divergence = entropy(softmax(_TEACHER / temperature, axis=1), softmax(_LOGITS / temperature, axis=1), axis=1).mean()

    found = _loss(distill=DistillConfig(temperature=temperature, alpha=alpha), teacher_logits=torch.tensor(_TEACHER))
    assert found == pytest.approx(alpha * temperature**2 * divergence + (1 - alpha) * _loss())


def test_a_student_that_agrees_has_only_the_hard_term() -> None:
    distill = DistillConfig(temperature=3.0, alpha=0.75)

    assert _loss(distill=distill, teacher_logits=torch.tensor(_LOGITS)) == pytest.approx(0.25 * _loss(), abs=1e-6)


def test_the_loss_of_half_precision_logits_is_computed_in_float32() -> None:
    loss = _loss_of(torch.tensor(_LOGITS, dtype=torch.bfloat16))

    assert loss.dtype == torch.float32


@pytest.mark.parametrize("kind", ["mse", "l1", "smooth-l1", "nll", "kl-div"])
def test_each_loss_is_its_formula(kind: str) -> None:
    probabilities, target = softmax(_LOGITS, axis=1), np.eye(3)[_LABELS]
    gaps = np.abs(probabilities - target)
    expected = {
        "mse": (gaps**2).mean(),
        "l1": gaps.mean(),
        "smooth-l1": np.where(gaps < 1, gaps**2 / 2, gaps - 0.5).mean(),
        "nll": -log_softmax(_LOGITS, axis=1)[[0, 1], _LABELS].mean(),
        "kl-div": entropy(target, probabilities, axis=1).mean(),
    }

    assert _loss(loss=kind) == pytest.approx(expected[kind], rel=1e-5)


def test_a_smoothed_divergence_differs_from_smoothed_cross_entropy_by_the_targets_entropy() -> None:
    target = 0.9 * np.eye(3)[_LABELS] + 0.1 / 3

    found = _loss(loss="kl-div", label_smoothing=0.1)
    assert found == pytest.approx(_loss(label_smoothing=0.1) - entropy(target, axis=1).mean(), rel=1e-5)


def test_mixed_labels_weigh_both_losses() -> None:
    labels = Labels(first=torch.tensor([0, 2]), second=torch.tensor([1, 0]), share=0.7)

    log = log_softmax(_LOGITS, axis=1)
    expected = -(0.7 * log[[0, 1], [0, 2]] + 0.3 * log[[0, 1], [1, 0]]).mean()
    assert _loss_of(torch.tensor(_LOGITS), labels=labels).item() == pytest.approx(expected)


def test_penalties_sum_magnitudes_of_all_parameters_or_of_the_norms_scales() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, -4.0]]))
        model[0].bias.copy_(torch.tensor([-1.0, 1.0]))
        model[1].weight.copy_(torch.tensor([-3.0, 2.0]))

    both = penalties(model, TrainConfig(l1=0.1, norm_l1=10))
    assert penalties(model, TrainConfig()) is None
    assert both is not None
    assert both.item() == pytest.approx(0.1 * (10 + 2 + 5) + 10 * 5)
    assert penalties(nn.Linear(2, 2), TrainConfig(norm_l1=1)) == 0

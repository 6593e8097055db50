"""The loss against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from trtbench.suite import DistillConfig
from trtbench.train.objective import objective

_LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
_TEACHER = np.array([[1.0, 1.0, -1.0], [-3.0, 2.0, 0.0]])
_LABELS = np.array([0, 2])


def _loss(logits: np.ndarray = _LOGITS, **settings: object) -> float:
    return objective(torch.tensor(logits), torch.tensor(_LABELS), **settings).item()  # type: ignore[arg-type]  # by name


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
    loss = objective(torch.tensor(_LOGITS, dtype=torch.bfloat16), torch.tensor(_LABELS))

    assert loss.dtype == torch.float32

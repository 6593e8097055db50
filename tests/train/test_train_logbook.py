"""The files a person reads, and a drawing that leaves matplotlib alone."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from trtbench.suite import TrainConfig
from trtbench.train.logbook import EpochRecord, draw_curves, write_config, write_curves, write_history

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.whole

_HISTORY = tuple(
    EpochRecord(
        epoch=number,
        lr=0.1 / number,
        train_loss=2.0 / number,
        train_correct=50 + 10 * number,
        train_total=100,
        val_loss=2.5 / number,
        val_correct=20 + 5 * number,
        val_total=50,
        seconds=1.25,
    )
    for number in (1, 2, 3)
)


def test_curves_are_a_png_with_both_panels() -> None:
    image = Image.open(io.BytesIO(draw_curves(_HISTORY, best_epoch=2)))
    pixels = np.asarray(image.convert("L"))

    assert image.format == "PNG"
    assert image.size == (1200, 480)
    left, right = pixels[:, :600], pixels[:, 600:]
    assert left.min() < 128
    assert right.min() < 128


def test_other_figures_have_other_curves_and_equal_ones_equal_bytes() -> None:
    drawn = draw_curves(_HISTORY, best_epoch=2)

    assert drawn == draw_curves(_HISTORY, best_epoch=2)
    assert drawn != draw_curves(_HISTORY, best_epoch=3)
    assert drawn != draw_curves(_HISTORY[:2], best_epoch=2)


def test_drawing_leaves_the_global_state_of_matplotlib_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would fail
    before = mpl.rcParams.copy()

    write_curves(tmp_path, _HISTORY, best_epoch=1)

    assert mpl.rcParams.copy() == before  # copies: reading the backend itself would import pyplot
    assert (tmp_path / "curves.png").read_bytes() == draw_curves(_HISTORY, best_epoch=1)


def test_the_history_is_there_for_machines_and_for_people(tmp_path: Path) -> None:
    write_history(tmp_path, _HISTORY, epochs=5, best_epoch=2)

    content = json.loads((tmp_path / "history.json").read_text())
    assert (content["epochs"], content["best_epoch"]) == (5, 2)
    assert [EpochRecord(**epoch) for epoch in content["history"]] == list(_HISTORY)
    assert (tmp_path / "train.log").read_text().splitlines()[1:] == [
        "epoch 2/5  lr 0.05  train loss 1.0000 70/100  val loss 1.2500 30/50  1.2 s  best",
        "epoch 3/5  lr 0.0333  train loss 0.6667 80/100  val loss 0.8333 35/50  1.2 s",
    ]


def test_the_config_is_written_with_what_it_ran_on(tmp_path: Path) -> None:
    config = TrainConfig(epochs=7, lr=0.25)

    write_config(tmp_path, config, fingerprint={"teacher": "none"})

    content = json.loads((tmp_path / "config.json").read_text())
    assert TrainConfig.model_validate(content["config"]) == config
    assert content["fingerprint"] == {"teacher": "none"}

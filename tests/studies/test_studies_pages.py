"""An explanation and a study as text, JSON and plots."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from matplotlib.patches import Rectangle

from trtbench.calibrate.exclusion import Exclusion
from trtbench.studies.calibration_page import balance_table, study_json, study_sentences, write_study
from trtbench.studies.calibration_run import Study, StudyPoint
from trtbench.studies.int8_drop import DropSplit, Effect, Explanation, KernelEffect, LayerEffect
from trtbench.studies.int8_drop_page import (
    caveats,
    exclude_yaml,
    explanation_json,
    explanation_markdown,
    kernel_table,
    layer_table,
    layers_figure,
    split_table,
    verdict,
    write_explanation,
)

if TYPE_CHECKING:
    from pathlib import Path


def _effect(correct: int, *, snr: float | None = 25.0) -> Effect:
    lost, gained = max(0, 930 - correct), max(0, correct - 930)
    return Effect(correct=correct, total=1000, lost=lost, gained=gained, agreement=0.99, logits_snr_db=snr)


@pytest.fixture
def explanation() -> Explanation:
    kernel = KernelEffect(
        how="as built", effect=_effect(920), true=_effect(925), against_true_snr_db=30.0, differing_predictions=12
    )
    split = DropSplit(
        placement="tensorrt",
        achieved="int8 in 19 of 19 convolutions",
        float_correct=930,
        weights=_effect(929),
        activations=_effect(931),
        both=_effect(925),
        kernels=(kernel,),
    )
    conv, add = (
        LayerEffect(
            name=name,
            op_type=kind,
            macs=macs,
            own_snr_db=snr,
            accumulated_snr_db=20.0,
            only=_effect(929, snr=snr),
            without=_effect(927),
        )
        for name, kind, macs, snr in (("layer1.conv", "Conv", 900, 30.0), ("layer1." + "a" * 60, "Add", 0, None))
    )
    return Explanation(
        model="resnet20",
        dataset="digits",
        variant="dense",
        placement="tensorrt",
        calibration={"method": "mse"},
        validation_images=1000,
        test_images=1000,
        validation_float_correct=930,
        splits=(split,),
        layers=(conv, add),
        all_quantized=_effect(925),
        max_drop_pp=0.4,
        exclusion=Exclusion(nodes=("layer1.conv",), effect=_effect(928), macs_share=1.0),
        final_validation=_effect(928),
        final_test=_effect(927),
        exclude=("head", "layer1.conv"),
        where={"cpu": "a CPU", "onnxruntime": "1.2"},
    )


def test_the_parts_and_the_kernels_share_stand_side_by_side(explanation: Explanation) -> None:
    (split,), (kernel,) = split_table(explanation).cells, kernel_table(explanation).cells

    assert split[:6] == ("tensorrt", "930", "-1", "+1", "-5", "925")
    assert kernel[2:] == ("1000", "925", "920", "-5", "12", "30.0")


def test_a_layer_says_its_noise_and_what_it_costs_alone(explanation: Explanation) -> None:
    conv, add = layer_table(explanation).cells

    assert conv == ("layer1.conv", "Conv", "100.0", "30.0", "20.0", "30.0", "-1", "+2", "float")
    assert add[2:] == ("", "no noise", "20.0", "no noise", "-1", "+2", "")


def test_the_verdict_says_what_to_keep_and_whether_test_proves_it(explanation: Explanation) -> None:
    told = verdict(explanation)

    assert "1 of 2 layers (100.0 % of the MACs) in higher precision bring it to 0.20 pp (928 of 1000 right)" in told
    assert "within 0.4 pp is not proven there" in told
    assert told.endswith("Keep layer1.conv.")

    harmless = replace(
        explanation, exclusion=replace(explanation.exclusion, nodes=()), max_drop_pp=5.0, final_test=_effect(929)
    )
    assert "no layer needs higher precision" in verdict(harmless)
    assert "is proven there" in verdict(harmless)


def test_validation_images_that_the_network_knows_already_are_no_proof(explanation: Explanation) -> None:
    assert caveats(explanation) == ()

    (told,) = caveats(replace(explanation, validation_float_correct=1000))
    assert told.startswith("FP32 gets every validation image right")


def test_the_exclude_list_is_what_the_suites_key_takes(explanation: Explanation) -> None:
    assert yaml.safe_load(exclude_yaml(explanation)) == {"calibration": {"exclude": ["head", "layer1.conv"]}}


def test_the_json_has_every_number_and_what_follows_from_it(explanation: Explanation) -> None:
    found = json.loads(json.dumps(explanation_json(explanation)))

    assert found["layers"][0]["only"]["drop_pp"] == pytest.approx(0.1)
    assert found["final_test"]["drop_upper_pp"] == explanation.final_test.drop_upper_pp
    assert found["splits"][0]["together_images"] == 5
    assert found["splits"][0]["kernels"][0]["lost_images"] == 5
    assert found["calibration"] == {"method": "mse"}


def test_an_explanation_is_written_whole(explanation: Explanation, tmp_path: Path) -> None:
    write_explanation(explanation, tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"explain.json", "explain.md", "explain.png", "exclude.yaml"}
    assert (tmp_path / "explain.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "explain.md").read_text(encoding="utf-8")
    assert "![Layer by layer](explain.png)" in text
    assert text.endswith("Measured on cpu a CPU, onnxruntime 1.2.\n")
    without_kernels = replace(explanation, splits=(replace(explanation.splits[0], kernels=()),))
    assert "runtime's share" not in explanation_markdown(without_kernels, plot="x.png")


def test_the_plot_names_every_layer_and_marks_those_in_float(explanation: Explanation) -> None:
    noise, images = layers_figure(explanation).axes
    names = [label.get_text() for label in noise.get_yticklabels()]

    assert names[0] == "layer1.conv (float)"
    assert names[1].startswith("...")
    assert [np.shape(collection.get_offsets())[0] for collection in noise.collections] == [1, 1, 2]
    widths = [bar.get_width() for bar in images.patches if isinstance(bar, Rectangle)]
    assert sorted(widths) == [-1, -1, 2, 2]
    assert images.get_xlim() == pytest.approx((-5.5, 5.5))  # the drop of all layers is 5 images


def _points(correct: dict[str, tuple[int, ...]]) -> tuple[StudyPoint, ...]:
    return tuple(
        StudyPoint(method="mse", sampling=sampling, per_class=size, seed=seed, effect=_effect(right + size))
        for sampling, rights in correct.items()
        for size in (1, 5)
        for seed, right in enumerate(rights)
    )


def _study(correct: dict[str, tuple[int, ...]]) -> Study:
    return Study(
        model="resnet20",
        dataset="digits",
        placement="tensorrt",
        split="validation",
        images=1000,
        float_correct=930,
        training_images=4000,
        leaking=3,
        points=_points(correct),
        where={"cpu": "a CPU"},
    )


def test_a_study_says_where_balance_is_beyond_chance_and_where_not() -> None:
    better = study_sentences(_study({"balanced": (920, 921, 922), "uniform": (910, 911, 913)}))
    worse = study_sentences(_study({"balanced": (910, 911, 913), "uniform": (920, 921, 922)}))
    chance = study_sentences(_study({"balanced": (910, 920), "uniform": (920, 910)}))

    assert better[0] == (
        "mse, balanced: against FP32, which gets 930 of 1000 right, -8.0 images at 1 per class and -4.0 at 5, means"
        " over 3 seeds"
    )
    assert "+9.7 images on average over 2 sizes; better beyond chance at 1, 5 per class" in better[1]
    assert "worse at 1, 5 per class" in worse[1]
    assert "at no size is the difference beyond chance" in chance[1]


def test_a_study_of_other_samplings_alone_says_nothing_of_balance() -> None:
    assert study_sentences(_study({"uniform": (910, 920)})) == ()


def test_a_study_is_written_whole(tmp_path: Path) -> None:
    found = _study({"balanced": (920, 921), "uniform": (910, 911)})
    write_study(found, tmp_path)

    document = json.loads((tmp_path / "calibration-study.json").read_text(encoding="utf-8"))
    assert document == json.loads(json.dumps(study_json(found)))
    assert [one["mean_images"] for one in document["balance"]] == [10, 10]
    assert "## What class balance gains" in (tmp_path / "calibration-study.md").read_text(encoding="utf-8")
    assert (tmp_path / "calibration-study.png").read_bytes().startswith(b"\x89PNG")


def test_one_seed_leaves_dashes_where_an_interval_would_stand() -> None:
    found = _study({"balanced": (920,), "uniform": (910,)})

    assert balance_table(found).cells[0][4] == "-"
    assert "at no size" in study_sentences(found)[1]

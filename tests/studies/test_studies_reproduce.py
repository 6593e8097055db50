"""Ours beside what was published: what a number is held against, and that the committed page is that of its results."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from trtbench.errors import ConfigError
from trtbench.fleet import open_job
from trtbench.models import build_model
from trtbench.report.document import read_report
from trtbench.running import Places
from trtbench.studies.published import Number, published
from trtbench.studies.reproduce import Score, Scored, reproduce_suite, restricted, write_bundle, write_reproduction
from trtbench.studies.reproduce_page import Beside, Difference, index_markdown, pareto_figure, reached, read_results
from trtbench.suite import adhoc_suite, load_suite

if TYPE_CHECKING:
    from collections.abc import Callable

_RESULTS = Path(__file__).parents[2] / "docs" / "results"
_IMAGES = 400


def _score(wrong: slice) -> Score:
    logits = np.tile(np.array([[1.0, 0.0]], np.float32), (_IMAGES, 1))
    logits[wrong] = [0.0, 1.0]
    return Score.of(logits, np.zeros(_IMAGES, np.int64))


def test_a_score_knows_which_images_were_right() -> None:
    found = _score(slice(0, 3))

    assert (found.correct, found.total) == (_IMAGES - 3, _IMAGES)
    assert found.mask().tolist() == [False] * 3 + [True] * (_IMAGES - 3)
    assert found.loss == pytest.approx(np.log(1 + np.exp(-1)) + 3 / _IMAGES, abs=1e-5)


def test_beaten_is_said_of_paired_intervals_above_zero_alone() -> None:
    ours, theirs = _score(slice(0, 3)), _score(slice(0, 30))
    paired = Difference.of(ours, theirs=theirs, accuracy=92.5, images=10_000)
    apart = Difference.of(ours, theirs=None, accuracy=92.5, images=10_000)
    close = Difference.of(ours, theirs=_score(slice(1, 5)), accuracy=99.0, images=10_000)

    assert paired.value == pytest.approx(6.75)
    assert paired.verdict == "**beaten**"
    assert paired.low > 4
    assert apart.low > 0
    assert apart.verdict == "higher"
    assert (close.verdict, close.low < 0 < close.high) == ("higher", True)
    assert Difference.of(theirs, theirs=ours, accuracy=0, images=1).verdict == "lower"


def test_every_published_number_has_a_row_in_its_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", "/nowhere")
    names: dict[str, set[str]] = {}
    for table in published().tables:
        for name in filter(None, (table.suite, table.short)):
            suite = load_suite(name)
            assert suite.model.name == table.network, table.id
            names[name] = {variant.name for variant in suite.variants}

    for table in published().tables:
        here = names[table.suite]
        study = set().union(*(one for suite, one in names.items() if suite.startswith(f"study-{table.source}")))
        assert {_variant(row.ours) for row in table.rows} <= here, table.id
        assert {_variant(row.best) for row in table.rows if row.best} <= study, table.id


def _variant(row: str) -> str:
    return row.removesuffix(" int8").removesuffix(" half")


def test_only_keeps_what_a_variant_goes_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", "/nowhere")
    suite = load_suite("study-002-trained")
    found = restricted(suite, ("second-order-80-bits-3",))

    kept = ["second-order-80", "second-order-80-tuned", "second-order-80-bits-3"]
    assert [variant.name for variant in found.variants] == kept
    assert restricted(suite, ()).variants == suite.variants
    with pytest.raises(ConfigError, match="--only"):
        restricted(suite, ("nothing",))


def test_networks_are_scored_as_they_are_and_in_half_precision_beside_published_ones(
    noise: Callable[..., Path], tmp_path: Path
) -> None:
    timed = read_report(Path(__file__).parents[1] / "report" / "twenty-four-rows.json").rows
    timed = tuple(replace(row, variant="weights") for row in timed if row.latency and row.batch_size == 1)
    torch.save(build_model("resnet20", num_classes=3).state_dict(), tmp_path / "theirs.pth")
    listed: Any = SimpleNamespace(checkpoints=lambda _: (("theirs.pth", None), ("theirs.pth", 4), ("gone.pth", None)))
    suite = adhoc_suite(
        model={"name": "resnet20", "train": {"epochs": 0}},
        data={"source": f"folder:{noise(train=6, test=3)}", "size": 16},
        variants={
            "kind": "weights",
            "sparsity": 0.5,
            "fine_tune": True,
            "budget": {"epochs": 1, "batch_size": 4, "lr": 0.001},
        },
    )
    found = reproduce_suite(
        suite,
        Places(runs=tmp_path / "runs", engines=tmp_path / "engines"),
        argv=("trtbench", "reproduce"),
        now=datetime.now(UTC),
        published=listed,
        theirs=tmp_path,
        builds=False,
        measured=timed,
    )

    assert [(one.checkpoint, one.bits, one.score.total) for one in found.theirs] == [
        ("theirs.pth", None, 9),
        ("theirs.pth", 4, 9),
    ]
    fp32 = {f"{row.shown_precision} {row.backend}": row.latency for row in timed if row.precision == "fp32"}
    assert {name: found.rows[0].ms[name] for name in fp32} == {name: one and one.p50_ms for name, one in fp32.items()}
    assert [row.name for row in found.rows] == ["weights", "weights half"]
    plain, half = found.rows
    assert plain.score is not None
    assert plain.score.total == 9
    assert plain.samples == found.train_images
    assert any("a budget of its own: 1 epochs" in note for note in plain.notes)
    assert plain.sparsity == pytest.approx(0.5, abs=1e-3)
    assert half.bytes is not None
    assert plain.bytes is not None
    assert half.bytes < plain.bytes
    write_reproduction(found, tmp_path)
    assert found.failed == {}


def test_a_bundle_makes_elsewhere_what_its_suite_makes_here(noise: Callable[..., Path], tmp_path: Path) -> None:
    suite = adhoc_suite(
        model={"name": "tiny_nets:resnet8", "train": {"epochs": 1, "batch_size": 6, "lr": 0.01}},
        data={"source": f"folder:{noise(train=6, test=3)}", "size": 16},
    )
    bundle = tmp_path / "bundle"
    script = write_bundle(suite, Places(runs=tmp_path / "pack"), bundle)
    there = open_job(bundle / "job.zip", Places(runs=tmp_path / "there"))

    rows = [
        reproduce_suite(*one, argv=(), now=datetime.now(UTC), published=published(), builds=False).rows
        for one in ((suite, Places(runs=tmp_path / "here")), there)
    ]
    assert [row.score for row in rows[0]] == [row.score for row in rows[1]]
    assert rows[1][0].samples == rows[0][0].samples
    assert (bundle / "code" / "trtbench" / "studies" / "published.yaml").is_file()
    assert "torch>=" in (bundle / "requirements.txt").read_text(encoding="utf-8")
    assert "reproduce job.zip" in script.read_text(encoding="utf-8")


def _line(number: Number, *, correct: int, size: int) -> Beside:
    score = replace(_score(slice(0, 0)), correct=correct)
    row = Scored(variant="a", form="half", score=score, params=1, macs=1, sparsity=0.0, bytes=size)
    return Beside(table=published().tables[0], number=number, ours=row, best=None, theirs=None)


def test_what_was_to_be_reached_says_what_was_tried_until_the_aim_is_there_too() -> None:
    number = Number(label="a", ours="a half", reach=90, aim=95, most_bytes=60_000, tried="more images: 89")

    assert reached(_line(number, correct=380, size=60_000)) == "90: reached by 60,000 bytes; aim 95: reached"
    assert reached(_line(number, correct=360, size=59_999)) == (
        "90: reached by 59,999 bytes; aim 95: not reached; more images: 89"
    )
    assert reached(_line(number, correct=380, size=60_001)) == (
        "90: not reached by 60,001 bytes; aim 95: not reached; more images: 89"
    )
    assert reached(replace(_line(number, correct=1, size=1), ours=None)) == "90: not run; more images: 89"


def test_every_reach_that_is_missed_says_what_was_tried_and_every_table_not_run_why() -> None:
    results = read_results(_RESULTS)
    for table in published().tables:
        assert table.suite in results or table.why, table.id
        for number in table.rows:
            said = reached(Beside.of(table, number, results))
            assert "not r" not in said or number.tried, (table.id, number.label)


def test_a_shorter_suite_stands_in_for_one_that_was_not_run() -> None:
    results = read_results(_RESULTS)
    table = next(one for one in published().tables if one.id == "001-resnet18")
    number = next(one for one in table.rows if one.checkpoint)
    whole = {"study-001-resnet18": replace(results["study-001-pruned70"], theirs=())}

    assert Beside.of(table, number, results).theirs is not None
    assert Beside.of(table, number, {**results, **whole}).theirs is None


def test_the_committed_page_is_that_of_its_results() -> None:
    results = read_results(_RESULTS)

    assert (_RESULTS / "index.md").read_text(encoding="utf-8") == index_markdown(results)


def test_the_names_on_a_plot_of_all_results_hide_neither_one_another_nor_end_outside() -> None:
    figure = pareto_figure(read_results(_RESULTS), by="bytes")
    figure.draw_without_rendering()
    (axes,) = figure.axes

    boxes = [Text.get_window_extent(one) for one in axes.texts]  # without the lines to their points

    assert len(boxes) >= 4
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert all(axes.bbox.x0 <= one.x0 and one.x1 <= axes.bbox.x1 and one.y1 <= axes.bbox.y1 for one in boxes)


def test_committed_results_hold_what_is_said_of_them() -> None:
    results = read_results(_RESULTS)
    beside = {
        (table.id, number.label): Beside.of(table, number, results)
        for table in published().tables
        for number in table.rows
    }
    differences = {key: one.difference for key, one in beside.items()}
    beaten = {key for key, found in differences.items() if found is not None and found.verdict == "**beaten**"}

    assert ("002-layer", "80 %") in beaten
    assert ("002-qat", "2 bits") in beaten
    assert {("002-ptq", f"{bits} bits, asymmetric") for bits in (4, 3, 2)} & beaten >= {
        ("002-ptq", "3 bits, asymmetric"),
        ("002-ptq", "2 bits, asymmetric"),
    }
    held = beside["002-pruned-qat", "3 bits"].best
    assert held is not None
    assert held.sparsity >= 0.8


@pytest.mark.slow
def test_a_structure_table_comes_out_again(tmp_path: Path) -> None:
    suite, committed = load_suite("study-001-structure-resnet20"), read_results(_RESULTS)
    found = reproduce_suite(
        suite,
        Places(runs=tmp_path / "runs", engines=tmp_path / "engines"),
        argv=(),
        now=datetime.now(UTC),
        published=published(),
        builds=False,
    )

    was = committed[suite.name].rows
    assert [(row.name, row.params, row.macs, row.sparsity) for row in found.rows] == [
        (row.name, row.params, row.macs, row.sparsity) for row in was
    ]
    for row, before in zip(found.rows, was, strict=True):
        assert row.bytes == pytest.approx(before.bytes, rel=0.01), row.name  # a processor may draw other weights

"""Plots: labels that do not cover, every row drawn, images that open."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from PIL import Image

from trtbench.report.charts import batch_figure, class_figure, latency_figure, samples_figure, size_figure
from trtbench.report.document import read_report
from trtbench.report.figures import draw_figures, images
from trtbench.report.figures_style import kind, marker
from trtbench.report.scatter import accuracy_figure, place_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.transforms import BboxBase

REPORT = read_report(Path(__file__).parent / "twenty-four-rows.json")
ROWS, DECISION = REPORT.rows, REPORT.decision
FRAME = (0.0, 0.0, 1000.0, 600.0)
Box = tuple[float, float, float, float]


def meets(a: Box, b: Box) -> bool:
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])


def holds(a: Box, b: Box) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and b[2] <= a[2] and b[3] <= a[3]


def edges(box: BboxBase) -> Box:
    return (box.x0, box.y0, box.x1, box.y1)


def overlaps(boxes: Sequence[Box]) -> bool:
    return any(meets(a, b) for a, b in itertools.combinations(boxes, 2))


@pytest.fixture(scope="module")
def plots() -> dict[str, Image.Image]:
    return {plot.path: Image.open(io.BytesIO(plot.png)) for plot in images(draw_figures(ROWS, DECISION))}


def test_a_report_has_three_images_of_a_size_to_read(plots: dict[str, Image.Image]) -> None:
    assert list(plots) == ["plots/accuracy-latency.png", "plots/latency.png", "plots/size.png"]
    assert all(image.format == "PNG" and image.width >= 1100 and image.height >= 700 for image in plots.values())


def test_labels_cover_neither_each_other_nor_a_point() -> None:
    figure = accuracy_figure(ROWS, DECISION)
    assert figure
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = [text for text in axes.texts if isinstance(text, Annotation)]
    boxes = [edges(label.get_window_extent()) for label in labels]
    points = [axes.transData.transform(label.xy) for label in labels]
    assert len(labels) == 12
    assert not overlaps(boxes)
    assert not any(meets(box, (x - 5, y - 5, x + 5, y + 5)) for box in boxes for x, y in points)
    assert all(holds(edges(axes.bbox), box) for box in boxes)


def test_the_label_names_variant_and_precision_and_eager_as_eager() -> None:
    figure = accuracy_figure(ROWS, DECISION)
    assert figure
    names = {text.get_text() for text in figure.axes[0].texts}
    assert {"channels-50 int8", "dense eager"} < names


def test_only_the_decision_s_batch_and_one_device_are_drawn_together() -> None:
    gpu = [replace(row, device="cuda:0", backend="tensorrt") for row in ROWS if row.variant == "dense"]
    by_batch = accuracy_figure(gpu, replace(DECISION, batch_size=32))
    assert by_batch
    assert "batch 32, on cuda:0" in by_batch.axes[0].get_title(loc="left")
    mixed, alone = images(draw_figures([*ROWS, *gpu], DECISION)), images(draw_figures(gpu, DECISION))
    assert [plot.png for plot in mixed] == [plot.png for plot in alone]


def test_the_pareto_line_runs_through_candidates_only_and_the_winner_has_a_ring() -> None:
    figure = accuracy_figure(ROWS, DECISION)
    assert figure
    line = next(line for line in figure.axes[0].lines if line.get_linestyle() == "--")
    best = {row.name: row for row in ROWS}
    xs = np.asarray(line.get_xdata(), dtype=np.float64)
    winner = best["channels-50 fp32 onnxruntime-cpu b1"].latency
    assert winner
    assert xs[0] == winner.p50_ms
    assert len(xs) == 4
    keys = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert keys[-1] == "recommended"


def test_baselines_alone_have_neither_line_nor_ring() -> None:
    figure = accuracy_figure([replace(row, role="baseline") for row in ROWS], replace(DECISION, winner=None))
    assert figure
    keys = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert keys == ["hollow: baseline or reference", "2 pp below the dense network: the limit"]


def test_candidates_alone_have_no_key_for_baselines() -> None:
    figure = accuracy_figure([row for row in ROWS if row.role == "candidate"], DECISION)
    assert figure
    keys = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "hollow: baseline or reference" not in keys
    assert keys[:3] == ["fp32", "int8", "Pareto line of the candidates"]


def test_a_row_far_below_stands_at_the_edge_and_does_not_press_the_others_flat() -> None:
    lost = next(row for row in ROWS if row.role == "candidate" and row.batch_size == 1 and row.name != DECISION.winner)
    assert lost.accuracy
    far = replace(lost, accuracy=replace(lost.accuracy, correct=36, top1=0.1, drop_pp=87.0, ci95=(0.07, 0.14)))
    rows = [far if row is lost else row for row in ROWS]

    figure = accuracy_figure(rows, DECISION, out={lost.name})

    assert figure
    axes = figure.axes[0]
    assert axes.get_ylim()[0] > 80
    assert f"{lost.variant} {lost.precision}: 10.00 %" in {text.get_text() for text in axes.texts}
    keys = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert {"grey: a limit is not provably kept", "far below, at its number"} < set(keys)


def test_the_limit_is_a_line_at_the_allowed_drop_below_the_dense_network() -> None:
    dense = next(row for row in ROWS if row.variant == "dense" and row.precision == "fp32" and row.role == "candidate")
    assert dense.accuracy

    figure = accuracy_figure(ROWS, DECISION)

    assert figure
    line = next(line for line in figure.axes[0].lines if line.get_linestyle() == ":")
    assert line.get_ydata()[0] == pytest.approx(100 * dense.accuracy.top1 - DECISION.max_drop_pp)  # type: ignore[index]


def test_the_recommended_bar_is_marked_and_each_number_stands_at_its_median() -> None:
    figure = latency_figure(ROWS, winner=DECISION.winner)

    assert figure
    texts = [text for axes in figure.axes for text in axes.texts if isinstance(text, Annotation)]
    assert [text.get_text().split() for text in texts if "recommended" in text.get_text()] == [["0.668", "recommended"]]
    medians = [row.latency.p50_ms for row in ROWS if row.latency]
    assert sorted(text.xy[0] for text in texts) == sorted(medians)


def test_bars_are_as_long_as_the_median_and_a_panel_holds_one_batch_size() -> None:
    figure = latency_figure(ROWS)
    assert figure
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["batch 1", "batch 32"]
    drawn = sorted(patch.get_width() for patch in figure.axes[0].patches)  # type: ignore[attr-defined]  # bars are rectangles
    assert drawn == sorted(row.latency.p50_ms for row in ROWS if row.latency and row.batch_size == 1)


def test_bars_of_a_variant_stand_together_and_none_covers_another() -> None:
    figure = latency_figure((*ROWS, replace(ROWS[0], precision="bf16", role="reference")))

    assert figure
    for axes in figure.axes:
        boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        spans = sorted((box.get_y(), box.get_y() + box.get_height()) for box in boxes)
        assert len(spans) > 1
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_the_bars_of_a_file_add_up_to_its_size() -> None:
    rows = [replace(ROWS[0], weight_bytes=None), replace(ROWS[2], weight_bytes=99_000_000), *ROWS[4:]]
    figure = size_figure(rows)
    assert figure
    widths = [patch.get_width() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]  # as above
    total = sum({(row.variant, kind(row, rows)): (row.engine_bytes or 0) / 1e6 for row in rows}.values())
    assert sum(widths) == pytest.approx(total)
    assert min(widths) >= 0


def test_without_numbers_nothing_is_drawn() -> None:
    empty = [replace(row, accuracy=None, latency=None, engine_bytes=None) for row in ROWS]
    assert images(draw_figures(empty, DECISION)) == ()
    assert images(draw_figures([replace(row, status="failed") for row in ROWS], DECISION)) == ()


def test_the_same_rows_draw_the_same_bytes(plots: dict[str, Image.Image]) -> None:
    again = images(draw_figures(ROWS, DECISION))
    assert all(Image.open(io.BytesIO(plot.png)).tobytes() == plots[plot.path].tobytes() for plot in again)


def test_a_simulated_row_is_titled_so() -> None:
    figure = accuracy_figure([replace(row, simulated=True) for row in ROWS], DECISION)
    assert figure
    assert figure.axes[0].get_title(loc="left").endswith("(simulated)")


def test_the_backend_is_named_where_there_are_two() -> None:
    other = replace(ROWS[0], backend="tensorrt")
    assert kind(ROWS[0], ROWS) == "fp32"
    assert kind(ROWS[0], [*ROWS, other]) == "fp32 onnxruntime-cpu"
    half = replace(next(row for row in ROWS if row.role == "baseline"), precision="fp16")
    assert kind(half, ROWS) == "eager fp16"
    assert len({marker(precision) for precision in ("fp32", "int8", "fp16", "int8+fp16")}) == 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(150, 850), st.floats(100, 500)), min_size=1, max_size=6))
def test_few_labels_always_find_room_inside_the_frame(points: list[tuple[float, float]]) -> None:
    placed = place_labels(points, [(80.0, 14.0)] * len(points), frame=FRAME)
    assert all(holds(FRAME, box) for box in placed)
    assert not overlaps(placed)


def test_a_label_goes_round_what_is_solid_and_rather_not_over_a_line() -> None:
    point, size = [(500.0, 300.0)], [(80.0, 14.0)]
    (free,) = place_labels(point, size, frame=FRAME)
    line = (free[0] + 5, 0.0, free[0] + 7, 600.0)
    assert not meets(place_labels(point, size, frame=FRAME, thin=[line])[0], line)
    assert not meets(place_labels(point, size, frame=FRAME, solid=[free])[0], free)


def test_the_line_to_a_label_does_not_run_through_another_point() -> None:
    other = (515.0, 290.0, 535.0, 310.0)  # a label beyond it would be the nearest that hides nothing
    wall = [(0.0, 0.0, 499.0, 600.0), (499.0, 320.0, 900.0, 600.0), (499.0, 0.0, 900.0, 280.0)]
    free, walled = (
        place_labels([(500.0, 300.0)], [(40.0, 14.0)], frame=FRAME, solid=solid)[0] for solid in ([], [*wall, other])
    )
    assert free[0] > 510
    assert not holds((535.0, 280.0, 900.0, 320.0), walled)


def test_latency_against_batch_has_a_panel_for_each_way_to_compute_and_a_line_a_variant() -> None:
    others = [replace(ROWS[0], precision=precision) for precision in ("fp16", "bf16", "tf32")]
    figure = batch_figure([*ROWS, *others])

    assert figure
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["fp32", "int8", "fp16", "bf16", "tf32", "eager"]
    lines = {str(line.get_label()): line for line in panels["int8"].get_lines()}
    assert set(lines) == {row.variant for row in ROWS}
    drawn = next(row for row in ROWS if row.name == "dense int8 onnxruntime-cpu b32")
    assert drawn.latency
    assert np.asarray(lines["dense"].get_ydata())[1] == drawn.latency.p50_ms / 32
    assert np.asarray(lines["dense"].get_xdata()).tolist() == [1, 32]
    assert batch_figure([row for row in ROWS if row.batch_size == 1]) is None


def test_of_many_classes_those_that_lost_most_are_drawn() -> None:
    assert ROWS[0].accuracy
    drops = tuple(float(number % 37) for number in range(100))
    figure = class_figure([replace(ROWS[0], accuracy=replace(ROWS[0].accuracy, class_drops_pp=drops))])

    assert figure
    axes = figure.axes[0]
    shown = [int(label.get_text()) for label in axes.get_xticklabels()]
    assert len(shown) == 20
    assert shown == sorted(shown)
    assert min(drops[number] for number in shown) >= sorted(drops)[-20]
    assert [float(text.get_text()) for text in axes.texts] == [drops[number] for number in shown]


def test_samples_that_are_few_or_all_the_same_have_no_shape() -> None:
    names = [row.name for row in ROWS if row.batch_size == 1]
    samples = {names[0]: np.array([1.0, 2.0]), names[1]: np.full(50, 3.0), names[2]: np.linspace(1, 2, 50)}

    figure = samples_figure(ROWS, samples, batch_size=1)

    assert figure
    assert len(figure.axes[0].get_yticklabels()) == 1
    assert samples_figure(ROWS, {}, batch_size=1) is None

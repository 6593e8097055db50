"""An INT8 drop layer by layer: the noise each layer puts on the logits, and what leaving it out gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from trtbench.report.figures_style import GREY, PALE, colours, new_figure, quieten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trtbench.bench.explain import Explanation, LayerEffect

_LAYER_INCHES = 0.22  # of height per layer, so that every label keeps its line
_NAME_LENGTH = 44


def layers_figure(found: Explanation) -> Figure:
    """Return two panels over the layers in the order of the graph: signal-to-noise ratios, and images right."""
    figure = new_figure(11, 2.0 + _LAYER_INCHES * len(found.layers))
    noise, images = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = list(range(len(found.layers)))
    _draw_noise(noise, found.layers, places)
    _draw_images(images, found, places)
    noise.set_yticks(places, [_label(layer, found) for layer in found.layers], fontsize=7)
    noise.set_ylim(len(places) - 0.4, -0.6)
    head = f"{found.model} {found.variant}, int8 for {found.placement}: each layer's share of the INT8 drop"
    figure.suptitle(f"{head}, {found.validation_images} validation images", x=0.01, ha="left", fontsize=11)
    return figure


def _draw_noise(axes: Axes, layers: Sequence[LayerEffect], places: Sequence[int]) -> None:
    series = {
        "logits, only this layer quantized": [layer.only.logits_snr_db for layer in layers],
        "this layer's output, only it quantized": [layer.own_snr_db for layer in layers],
        "this layer's output, all quantized": [layer.accumulated_snr_db for layer in layers],
    }
    for (name, values), colour, shape in zip(series.items(), colours(list(series)).values(), "os^", strict=True):
        pairs = [(value, place) for value, place in zip(values, places, strict=True) if value is not None]
        axes.scatter(
            [value for value, _ in pairs], [place for _, place in pairs], s=22, marker=shape, color=colour, label=name
        )
    for place in places:
        axes.axhline(place, color="#EEEEEE", linewidth=0.6, zorder=0)
    quieten(axes)
    axes.set_xlabel("signal-to-noise ratio, dB (right is better)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=1, frameon=False, fontsize=7)


def _draw_images(axes: Axes, found: Explanation, places: Sequence[int]) -> None:
    shown = colours(["only", "without"])
    only = [layer.only.correct - found.validation_float_correct for layer in found.layers]
    without = [layer.without.correct - found.all_quantized.correct for layer in found.layers]
    axes.barh([place - 0.2 for place in places], only, 0.38, color=shown["only"], label="only it in INT8, against FP32")
    axes.barh(
        [place + 0.2 for place in places],
        without,
        0.38,
        color=shown["without"],
        label="all but it in INT8, against all in INT8",
    )
    axes.axvline(0, color=GREY, linewidth=0.8)
    drop = found.all_quantized.correct - found.validation_float_correct
    axes.axvline(drop, color=PALE, linewidth=1, linestyle="--", label=f"all in INT8, against FP32: {drop:+d}")
    quieten(axes)
    axes.tick_params(axis="y", length=0)
    reach = 1.1 * max(1, *(abs(count) for count in (*only, *without, drop)))
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("images right, gained or lost")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=1, frameon=False, fontsize=7)


def _label(layer: LayerEffect, found: Explanation) -> str:
    name = layer.name if len(layer.name) <= _NAME_LENGTH else f"...{layer.name[-_NAME_LENGTH:]}"
    return f"{name} (float)" if layer.name in found.exclusion.nodes else name

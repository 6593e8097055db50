"""A calibration study as a plot: images right and the logits' noise by images per class, one line a sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter, NullFormatter

from trtbench.bench.study import spreads
from trtbench.report.figures_style import GREY, colours, new_figure, quieten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trtbench.bench.study import Spread, Study

_SHAPES = "osD^"
_SIDESTEP = 0.05  # share by which neighbouring lines stand apart, so that their bars do not cover each other


def study_figure(found: Study) -> Figure:
    """Return a row of two panels for each method: images right (bars: least to most over seeds), logits' SNR."""
    summary = spreads(found.points)
    methods = list(dict.fromkeys(one.method for one in summary))
    samplings = list(dict.fromkeys(one.sampling for one in summary))
    figure = new_figure(11, 1.2 + 3.4 * len(methods))
    rows = figure.subplots(len(methods), 2, squeeze=False)
    for (right, noise), method in zip(rows, methods, strict=True):
        here = [one for one in summary if one.method == method]
        _draw(right, here, samplings, value="mean_correct", has_bars=True)
        _draw(noise, here, samplings, value="mean_snr_db", has_bars=False)
        right.axhline(found.float_correct, color=GREY, linewidth=1, linestyle="--", label="FP32")
        right.set_ylabel(f"images right of {found.images}")
        noise.set_ylabel("logits' signal-to-noise ratio, dB")
        right.set_title(f"{method}: accuracy (bars: least to most over seeds)", loc="left", fontsize=10)
        noise.set_title(f"{method}: closeness to FP32 (mean over seeds)", loc="left", fontsize=10)
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside lower left", ncols=5, frameon=False, fontsize=8)
    head = f"{found.model}, int8 for {found.placement}: images and class balance, {found.images} {found.split} images"
    figure.suptitle(head, x=0.01, ha="left", fontsize=11)
    return figure


def _draw(axes: Axes, summary: Sequence[Spread], samplings: Sequence[str], *, value: str, has_bars: bool) -> None:
    by_sampling: Mapping[str, str] = colours(samplings)
    for index, sampling in enumerate(samplings):
        line = [one for one in summary if one.sampling == sampling and getattr(one, value) is not None]
        places = [one.per_class * (1 + _SIDESTEP * (index - (len(samplings) - 1) / 2)) for one in line]
        heights = [getattr(one, value) for one in line]
        below = [one.mean_correct - one.least_correct for one in line]
        above = [one.most_correct - one.mean_correct for one in line]
        axes.errorbar(
            places,
            heights,
            yerr=[below, above] if has_bars else None,
            color=by_sampling[sampling],
            marker=_SHAPES[index % len(_SHAPES)],
            markersize=5,
            linewidth=1.4,
            elinewidth=1,
            capsize=2,
            label=sampling,
        )
    quieten(axes)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xticks(sorted({one.per_class for one in summary}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.set_xlabel("calibration images per class (on average where not balanced)")

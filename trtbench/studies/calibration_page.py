"""A calibration study: its JSON, its tables, its figure and what it says, for or against class balance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FuncFormatter, NullFormatter

from trtbench.disk import write_atomically
from trtbench.jsonable import to_jsonable
from trtbench.report.figures import png
from trtbench.report.figures_style import GREY, colours, new_figure, quieten
from trtbench.report.tables import Table, to_markdown
from trtbench.report.units import ABSENT, fixed, signed, significant
from trtbench.studies.calibration_run import BALANCED, balance_effects, spreads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trtbench.studies.calibration_run import BalanceEffect, Spread, Study

_SHAPES = "osD^"
_SIDESTEP = 0.05  # share by which neighbouring lines stand apart, so that their bars do not cover each other


def study_json(found: Study) -> dict[str, Any]:
    """Return the record as JSON values, with the spread over seeds and what balance gains."""
    document: dict[str, Any] = to_jsonable(found)
    summary = {"spreads": to_jsonable(spreads(found.points)), "balance": to_jsonable(balance_effects(found.points))}
    return {**document, **summary, "sentences": list(study_sentences(found))}


def write_study(found: Study, folder: Path) -> None:
    """Write calibration-study.json, .md and .png into `folder`; each is whole or absent.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_atomically(folder / "calibration-study.json", json.dumps(study_json(found), indent=1) + "\n")
    write_atomically(folder / "calibration-study.png", png(study_figure(found)))
    write_atomically(folder / "calibration-study.md", study_markdown(found, plot="calibration-study.png"))


def study_markdown(found: Study, *, plot: str) -> str:
    """Return calibration-study.md; `plot` is the path of the image, relative to the file."""
    parts = [
        f"# What calibration images are worth: {found.model} on {found.dataset}",
        "\n".join(f"- {line}" for line in study_sentences(found)),
        f"![Accuracy by images per class]({plot})",
        f"## {found.images} {found.split} images, FP32 gets {found.float_correct} right",
        to_markdown(spread_table(found)),
        "Images right in true Q/DQ arithmetic; SNR: of the logits against FP32, mean over seeds.",
        "## What class balance gains",
        to_markdown(balance_table(found)),
        "Balanced minus the other sampling, paired by seed: images right with Student's 95 % interval, and decibels.",
        f"Measured on {', '.join(' '.join(item) for item in found.where.items())}.",
    ]
    return "\n\n".join(parts) + "\n"


def spread_table(found: Study) -> Table:
    """Return a line for each method, sampling and size."""
    return Table.by(
        spreads(found.points),
        ("Method", lambda one: one.method),
        ("Sampling", lambda one: one.sampling),
        ("Per class", lambda one: str(one.per_class)),
        ("Right, mean", lambda one: fixed(one.mean_correct, decimals=1)),
        ("Least", lambda one: str(one.least_correct)),
        ("Most", lambda one: str(one.most_correct)),
        ("Deviation", lambda one: fixed(one.deviation)),
        ("SNR dB", lambda one: significant(one.mean_snr_db)),
        left=2,
    )


def balance_table(found: Study) -> Table:
    """Return a line for each method, size and sampling that is not balanced."""
    return Table.by(
        balance_effects(found.points),
        ("Method", lambda one: one.method),
        ("Against", lambda one: one.sampling),
        ("Per class", lambda one: str(one.per_class)),
        ("Images", lambda one: signed(one.mean_images)),
        ("95 % interval", lambda one: ABSENT if one.ci95_images is None else " to ".join(map(signed, one.ci95_images))),
        ("dB", lambda one: signed(one.mean_db, decimals=2)),
        left=2,
    )


def study_sentences(found: Study) -> tuple[str, ...]:
    """Say what the points show: where more images stop to help, and whether balance does."""
    return tuple(_sentences(found))


def _sentences(found: Study) -> Iterator[str]:
    for method in dict.fromkeys(point.method for point in found.points):
        balanced = [one for one in spreads(found.points) if (one.method, one.sampling) == (method, BALANCED)]
        if balanced:
            least, most = balanced[0], balanced[-1]
            yield (
                f"{method}, balanced: against FP32, which gets {found.float_correct} of {found.images} right, "
                f"{signed(least.mean_correct - found.float_correct)} images at {least.per_class} per class and "
                f"{signed(most.mean_correct - found.float_correct)} at {most.per_class}, means over {most.seeds} seeds"
            )
        effects = [one for one in balance_effects(found.points) if one.method == method]
        for sampling in dict.fromkeys(one.sampling for one in effects):
            yield _balance_sentence(method, sampling, [one for one in effects if one.sampling == sampling])


def _balance_sentence(method: str, sampling: str, effects: list[BalanceEffect]) -> str:
    for_it = [one for one in effects if one.ci95_images is not None and one.ci95_images[0] > 0]
    against = [one for one in effects if one.ci95_images is not None and one.ci95_images[1] < 0]
    mean = sum(one.mean_images for one in effects) / len(effects)
    claim = f"{method}, balanced against {sampling}: {signed(mean)} images on average over {len(effects)} sizes"
    sizes = ", ".join(str(one.per_class) for one in for_it)
    worse = ", ".join(str(one.per_class) for one in against)
    proof = [
        f"better beyond chance at {sizes} per class" if for_it else "",
        f"worse at {worse} per class" if worse else "",
    ]
    said = " and ".join(part for part in proof if part) or "at no size is the difference beyond chance"
    return f"{claim}; {said} (95 % intervals over seeds, one a size: of twenty, one strays by chance)"


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

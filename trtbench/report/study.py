"""A calibration study: its JSON, its tables and what it says, for or against class balance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from trtbench.bench.study import BALANCED, balance_effects, spreads
from trtbench.jsonable import to_jsonable
from trtbench.report.tables import Table, to_markdown
from trtbench.report.units import fixed, significant
from trtbench.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbench.bench.study import BalanceEffect, Study


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
    from trtbench.report.figures import png  # matplotlib is slow to import
    from trtbench.report.study_plot import study_figure

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
    headers = ("Method", "Sampling", "Per class", "Right, mean", "Least", "Most", "Deviation", "SNR dB")
    cells = tuple(
        (
            one.method,
            one.sampling,
            str(one.per_class),
            fixed(one.mean_correct, decimals=1),
            str(one.least_correct),
            str(one.most_correct),
            fixed(one.deviation),
            significant(one.mean_snr_db),
        )
        for one in spreads(found.points)
    )
    return Table.of(headers, cells, left=2)


def balance_table(found: Study) -> Table:
    """Return a line for each method, size and sampling that is not balanced."""
    headers = ("Method", "Against", "Per class", "Images", "95 % interval", "dB")
    cells = tuple(
        (
            one.method,
            one.sampling,
            str(one.per_class),
            f"{one.mean_images:+.1f}",
            "-" if one.ci95_images is None else f"{one.ci95_images[0]:+.1f} to {one.ci95_images[1]:+.1f}",
            "-" if one.mean_db is None else f"{one.mean_db:+.2f}",
        )
        for one in balance_effects(found.points)
    )
    return Table.of(headers, cells, left=2)


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
                f"{least.mean_correct - found.float_correct:+.1f} images at {least.per_class} per class and "
                f"{most.mean_correct - found.float_correct:+.1f} at {most.per_class}, means over {most.seeds} seeds"
            )
        effects = [one for one in balance_effects(found.points) if one.method == method]
        for sampling in dict.fromkeys(one.sampling for one in effects):
            yield _balance_sentence(method, sampling, [one for one in effects if one.sampling == sampling])


def _balance_sentence(method: str, sampling: str, effects: list[BalanceEffect]) -> str:
    for_it = [one for one in effects if one.ci95_images is not None and one.ci95_images[0] > 0]
    against = [one for one in effects if one.ci95_images is not None and one.ci95_images[1] < 0]
    mean = sum(one.mean_images for one in effects) / len(effects)
    told = f"{method}, balanced against {sampling}: {mean:+.1f} images on average over {len(effects)} sizes"
    sizes = ", ".join(str(one.per_class) for one in for_it)
    worse = ", ".join(str(one.per_class) for one in against)
    proof = [
        f"better beyond chance at {sizes} per class" if for_it else "",
        f"worse at {worse} per class" if worse else "",
    ]
    said = " and ".join(part for part in proof if part) or "at no size is the difference beyond chance"
    return f"{told}; {said} (95 % intervals over seeds, one a size: of twenty, one strays by chance)"

"""Ours beside theirs: docs/results/index.md and its plots, drawn from the JSON files beside it.

python -m trtbench.studies.reproduce_page docs/results
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtbench.bench.paired_drop import drop_upper_bound
from trtbench.bench.statistics import wilson_interval
from trtbench.decide.rank import pareto_front
from trtbench.disk import write_atomically
from trtbench.report.figures import png
from trtbench.report.figures_style import GREY, GRID, new_figure, quieten
from trtbench.report.scatter import KEEP_OFF, draw_labels, level_parts
from trtbench.report.tables import Table, to_markdown
from trtbench.report.units import ABSENT, fixed, percent, signed, significant
from trtbench.studies.published import published
from trtbench.studies.reproduce import Reproduction, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.figure import Figure

    from trtbench.studies.published import Number, PublishedTable
    from trtbench.studies.reproduce import Score, Scored

    Results = Mapping[str, Reproduction]

_HALF_ERROR = 0.975  # one-sided, so that both bounds hold together at 95 %
_MIB = 2**20
_WORTH = 50.0  # top-1 in percent, below which a network is no choice
_HEAD = """# What the source studies published, and what came of it here

Every table is drawn from the JSON files in this folder and from `trtbench/studies/published.yaml` by
`python -m trtbench.studies.reproduce_page docs/results`; a test fails where they differ. One line is one published
number. Theirs is on the study's test images; "on our images" is the published checkpoint, or without training the
study's method on its checkpoint, scored on the images that ours is scored on. The difference is of the last named of
our rows; it is paired, image by image, where theirs is on our images, and else between two samples. *beaten*: the 95 %
interval of a paired difference lies above zero; else *higher*, *lower* or *equal*. All intervals are of one number
each; a row is of seed 0, other seeds stand behind it. Nothing was measured on a GPU, and no latency: the machine was
busy. The networks were trained and scored on one thread (`OMP_NUM_THREADS=1`); another processor rounds otherwise, and
up to nine of 1,017 images went another way on one.

The structure tables need nothing but the package: `trtbench reproduce study-001-structure-resnet20 --no-engines` makes
one again. A clean clone of commit 0127433 did so on 2026-11-29: parameters, MACs, zeros, bytes and counts of all 38
rows as in the file here; a slow test compares them too. The others read `SHARED`, the folder above
`data/cifar10-lossless.tar.xz` (class folders of original CIFAR-10 images, 5,170 to train on and 1,017 to test),
`data/cifar10-jpeg.tar.xz` (50,000 and 5,000 as JPEG of quality 75, for study-001-pruned70-trained alone) and
`weights/`: the two of [akamaster](https://github.com/akamaster/pytorch_resnet_cifar10), 001's
`results/pruning/70_percent/best_model.pth` as `dinalon-resnet18-pruned70.pth` and
`results/resnet20/pruning/0_percent/best_model.pth` as `dinalon-resnet20-finetuned.pth`, and 002's
`pretrained_model.pt` as `yi-resnet20-pretrained.pt`. `--theirs` names a folder that has the other checkpoints where
their repository has them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Ours less theirs in percentage points, its 95 % interval, and whether it is paired image by image."""

    value: float
    low: float
    high: float
    is_paired: bool

    @classmethod
    def of(cls, ours: Score, *, theirs: Score | None, accuracy: float, images: int) -> Difference:
        """Return the difference on the same images, or to so many others by both Wilson intervals (Newcombe 1998)."""
        if theirs is not None:
            lost = int((theirs.mask() & ~ours.mask()).sum())
            gained = int((ours.mask() & ~theirs.mask()).sum())
            low = -drop_upper_bound(lost, gained, ours.total, confidence=_HALF_ERROR)
            high = drop_upper_bound(gained, lost, ours.total, confidence=_HALF_ERROR)
            return cls(value=100 * (gained - lost) / ours.total, low=100 * low, high=100 * high, is_paired=True)
        share, other = ours.correct / ours.total, accuracy / 100
        low, high = wilson_interval(ours.correct, ours.total)
        least, most = wilson_interval(round(other * images), images)
        value = share - other
        return cls(
            value=100 * value,
            low=100 * (value - math.hypot(share - low, most - other)),
            high=100 * (value + math.hypot(high - share, other - least)),
            is_paired=False,
        )

    @property
    def verdict(self) -> str:
        """Say in a word what it shows."""
        if self.is_paired and self.low > 0:
            return "**beaten**"
        return "higher" if self.value > 0 else "lower" if self.value < 0 else "equal"

    def __str__(self) -> str:
        return f"{signed(self.value, decimals=2)} ({signed(self.low)} to {signed(self.high)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A published number with what stands beside it: ours done the same way, the best of ours, theirs on our images."""

    table: PublishedTable
    number: Number
    ours: Scored | None
    best: Scored | None
    theirs: Score | None

    @classmethod
    def of(cls, table: PublishedTable, number: Number, results: Results) -> Beside:
        """Find the rows of a number among the results."""
        found = _result(table, results)
        ours = None if found is None else found.row(number.ours)
        best = None if number.best is None else _row(number.best, table, results)
        if best is not None and best.score is not None and ours is not None and ours.score is not None:
            assert best.score.total == ours.score.total, "rows of one table have the same images"
        return cls(table=table, number=number, ours=ours, best=best, theirs=_theirs(table, number, found, ours))

    @property
    def shown(self) -> Scored | None:
        """The row that is held against theirs."""
        return self.best or self.ours

    @property
    def difference(self) -> Difference | None:
        """How ours differs, where both were scored."""
        shown, accuracy = self.shown, self.number.accuracy
        if shown is None or shown.score is None or accuracy is None:
            return None
        theirs = None if shown.score is self.theirs else self.theirs
        return Difference.of(shown.score, theirs=theirs, accuracy=accuracy, images=self.table.images)

    @property
    def setting(self) -> str:
        """Say in what ours was made otherwise."""
        shown = self.shown
        if shown is None or shown.score is None:
            return "not run"
        wanted = self.number.samples if self.number.samples is not None else self.table.samples
        parts = [f"{self.table.weights} weights" if self.table.weights == "same" else self.table.weights]
        parts.append(f"{shown.score.total:,} of {self.table.images:,} images")
        if shown.samples != wanted:
            parts.append(f"{shown.samples:,} training samples of {wanted:,}")
        return "; ".join(parts)


def _result(table: PublishedTable, results: Results) -> Reproduction | None:
    """Return the result of the table's suite, or of the shorter one that stands in for it."""
    return results.get(table.suite) or results.get(table.short or "")


def _row(name: str, table: PublishedTable, results: Results) -> Scored | None:
    """Find a row in the table's suite, or in another of the same study."""
    here = [found] if (found := _result(table, results)) is not None else []
    others = [one for suite, one in results.items() if suite.startswith(f"study-{table.source}")]
    return next((row for one in (*here, *others) if (row := one.row(name)) is not None), None)


def _theirs(table: PublishedTable, number: Number, found: Reproduction | None, ours: Scored | None) -> Score | None:
    if found is not None and number.checkpoint is not None:
        for one in found.theirs:
            if (one.checkpoint, one.bits) == (number.checkpoint, number.bits):
                return one.score
    is_theirs = table.weights == "same" and not ours.samples if ours is not None else False
    return ours.score if is_theirs and ours is not None and ours.form == "network" else None


def read_results(folder: Path) -> dict[str, Reproduction]:
    """Return every result of a folder by its suite's name.

    Raises:
        ConfigError: a file is none.
    """
    files = sorted(folder.glob("study-*.json"))
    return {file.stem: parsed(file.read_text(encoding="utf-8"), origin=str(file)) for file in files}


def study_tables(suite: str, results: Results) -> Iterator[tuple[PublishedTable, Table]]:
    """Yield the tables of a suite, each published number with ours beside it."""
    for table in published().of_suite(suite):
        yield table, _table(table, results)


def _table(table: PublishedTable, results: Results) -> Table:
    lines = [Beside.of(table, number, results) for number in table.rows]
    if all(line.number.accuracy is None and line.number.params is not None for line in lines):
        return _structure(lines)
    has_bytes, has_reach = (any(getattr(line.number, key) for line in lines) for key in ("mb", "reach"))
    headers = ["published", "theirs %", "loss", "on our images %", "ours, same way %", "loss", "best of ours %"]
    headers += ["difference, pp (95 %)", "", *["to reach %"] * has_reach, *["MB", "MB of ours"] * has_bytes, "setting"]
    cells = []
    for line in lines:
        number = line.number
        cell = [number.label, fixed(number.accuracy), fixed(number.loss, decimals=4)]
        cell += [_top1(line.theirs), _top1(None if line.ours is None else line.ours.score), _loss(line.ours)]
        cell += [ABSENT if line.best is None else _best(line.best, results)]
        found = line.difference
        cell += [ABSENT if found is None else str(found), "" if found is None else found.verdict]
        cell += [reached(line)] * has_reach
        if has_bytes:
            cell += [fixed(number.mb), _sizes(line.shown)]
        cells.append((*cell, line.setting))
    return Table.of(headers, cells, left=1)


def _structure(lines: Sequence[Beside]) -> Table:
    has_zeros = any(line.number.zeros is not None for line in lines)
    headers = (
        "published",
        "parameters",
        "ours",
        "MACs, M",
        "ours",
        "MB",
        "of our file",
        *["zeros %", "ours"] * has_zeros,
    )
    cells = []
    for line in lines:
        number, ours = line.number, line.ours
        size = None if ours is None or ours.bytes is None else ours.bytes / _MIB
        cell = [f"{number.params:,}", ABSENT if ours is None else f"{ours.params:,}"]
        cell += [_millions(number.macs), _millions(None if ours is None else ours.macs), fixed(number.mb), fixed(size)]
        if has_zeros:
            cell += [fixed(number.zeros), ABSENT if ours is None else percent(ours.sparsity)]
        cells.append((number.label, *cell))
    return Table.of(headers, cells, left=1)


def _millions(macs: int | None) -> str:
    return ABSENT if macs is None else fixed(macs / 1e6)


def _top1(score: Score | None) -> str:
    return ABSENT if score is None else percent(score.correct / score.total)


def _best(row: Scored, results: Results) -> str:
    """Return a row's accuracy and name, and the accuracies of the same row by other seeds of its training."""
    rows = (one for found in results.values() for one in found.rows if one.variant.startswith(f"{row.variant}-seed-"))
    others = [_top1(one.score) for one in rows if one.form == row.form]
    return f"{_top1(row.score)} {row.name}" + (f" (other seeds {', '.join(others)})" if others else "")


def _loss(row: Scored | None) -> str:
    return ABSENT if row is None or row.score is None else fixed(row.score.loss, decimals=4)


def reached(line: Beside) -> str:
    """Say whether a row is what it was to be, or what was tried and how far that came."""
    number, shown = line.number, line.ours if line.number.best is None else line.best
    if number.reach is None:
        return ""
    tried = f"; {number.tried}" if number.tried else ""
    if shown is None or shown.score is None:
        return f"{number.reach:g}: not run{tried}"
    top1, is_small = 100 * shown.score.correct / shown.score.total, True
    if number.most_bytes is not None and shown.bytes is not None:
        is_small = shown.bytes <= number.most_bytes
    is_reached = top1 >= number.reach and is_small
    is_all = is_reached and top1 >= (number.aim or 0)
    said = f"{number.reach:g}: {'reached' if is_reached else 'not reached'}"
    if number.most_bytes is not None and shown.bytes is not None:
        said += f" by {shown.bytes:,} bytes"
    if number.aim is not None:
        said += f"; aim {number.aim:g}: {'reached' if is_all else 'not reached'}"
    return said if is_all else said + tried


def _sizes(row: Scored | None) -> str:
    if row is None:
        return ABSENT
    sizes = {".tbz": row.bytes, **row.engines}
    return "; ".join(f"{significant(size / _MIB)} {name}" for name, size in sizes.items() if size) or ABSENT


def forms_table(results: Results) -> Table:
    """Return every network of ours with its bytes, smallest first, above chance."""
    rows = [
        (suite, row) for suite, one in results.items() for row in one.rows if row.bytes and row.score and _is_worth(row)
    ]
    rows.sort(key=lambda one: one[1].bytes or 0)
    cells = [
        (
            f"{suite.removeprefix('study-')}: {row.name}",
            f"{row.bytes:,}",
            _top1(row.score),
            significant(row.macs / 1e6),
            percent(row.sparsity),
            f"{row.samples:,}",
        )
        for suite, row in rows
    ]
    return Table.of(("ours", "bytes", "top-1 %", "MACs, M", "zeros %", "training samples"), cells, left=1)


def _is_worth(row: Scored) -> bool:
    return row.score is not None and 100 * row.score.correct / row.score.total > _WORTH


def index_markdown(results: Results) -> str:
    """Return index.md."""
    parts = [_HEAD]
    for key, source in published().sources.items():
        parts += [f"## {source.title}", f"{source.url}. {source.faults.strip()}"]
        for table in published().tables:
            if table.source == key:
                parts += [f"### {table.title}", _where(table, results), to_markdown(_table(table, results))]
    parts += ["## All that was made, by bytes", to_markdown(forms_table(results))]
    parts += ["![Accuracy against bytes](pareto-bytes.png)", "![Accuracy against MACs](pareto-macs.png)"]
    parts += ["## Where it ran", to_markdown(_provenance(results))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _where(table: PublishedTable, results: Results) -> str:
    """Name the command and its result, and what was not run and why."""
    ran = next((one for one in (table.suite, table.short) if one in results), None)
    parts = [] if ran is None else [f"`trtbench reproduce {ran}`: [its result]({ran}.json)."]
    if ran != table.suite:
        why = "" if table.why is None else f" {table.why.strip()}"
        parts.append(f"Not run: `trtbench reproduce {table.suite}`.{why}")
    return " ".join(parts)


def _provenance(results: Results) -> Table:
    cells = []
    for suite, one in results.items():
        host, packages = one.environment["host"], one.environment["packages"]
        versions = {package["module"]: package["version"] for package in packages}
        cells.append(
            (
                f"[{suite}]({suite}.json)",
                f"`{' '.join(one.argv)}`",
                f"{host['cpu']['logical_cores']} cores, {host['cpu']['model']}",
                f"Python {host['python']}, torch {versions.get('torch')}",
                one.created[:10],
                one.test_sha256[:12],
            )
        )
    return Table.of(("result", "command", "machine", "versions", "day", "test images"), cells, left=6)


def pareto_figure(results: Results, *, by: str) -> Figure:
    """Return accuracy against bytes or MACs of all rows above chance, ours and published, and the line none beats."""
    figure = new_figure(9.5, 6)
    axes = figure.subplots()
    ours = [
        (float(size), 100 * row.score.correct / row.score.total, row.name)
        for one in results.values()
        for row in one.rows
        if row.score is not None and _is_worth(row) and (size := getattr(row, by))
    ]
    theirs = [
        (size, number.accuracy, f"{table.source} {number.label}")
        for table in published().tables
        if "cifar100" not in table.id  # other classes, and no such row of ours
        for number in table.rows
        if number.accuracy is not None and number.accuracy > _WORTH and (size := _published_size(number, by))
    ]
    for points, colour, label in ((theirs, GREY, "published"), (ours, "C0", "ours")):
        if points:
            axes.scatter([x for x, _, _ in points], [y for _, y, _ in points], s=18, color=colour, label=label)
    front = _front([*ours, *theirs])
    line = [(x, y) for x, y, _ in front]
    axes.step(*zip(*line, strict=True), where="post", color=GREY, linewidth=1, linestyle="--")
    quieten(axes)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlabel(f"{'bytes of the file' if by == 'bytes' else 'MACs of one image'} (log scale; left is better)")
    axes.set_ylabel("top-1, % (ours of our images, theirs of theirs)")
    axes.legend(loc="lower right")
    axes.margins(x=0.12, y=0.12)
    draw_labels(
        axes,
        [(name, (x, y)) for x, y, name in front],
        points=[((x, y), KEEP_OFF / 2) for x, y, _ in (*ours, *theirs)],
        lines=level_parts(line),
    )
    return figure


def _published_size(number: Number, by: str) -> float | None:
    if by == "macs":
        return number.macs
    return None if number.mb is None else number.mb * _MIB


def _front(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Return the points that reach the best top-1 within their size, smallest first; of equal ones the first."""
    names = {(x, y): name for x, y, name in reversed(points)}
    places = list(names)
    return sorted((*places[one], names[places[one]]) for one in pareto_front([(x, -y) for x, y in places]))


def write_index(folder: Path) -> None:
    """Write index.md and the plots of a folder of results.

    Raises:
        ConfigError: a file of it is no result.
        StoreError: the folder cannot be written.
    """
    results = read_results(folder)
    write_atomically(folder / "index.md", index_markdown(results))
    for by in ("bytes", "macs"):
        write_atomically(folder / f"pareto-{by}.png", png(pareto_figure(results, by=by)))


if __name__ == "__main__":
    write_index(Path(sys.argv[1]))

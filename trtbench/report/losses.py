"""Why a row lost more than the limit: which class, whether kernels, codes or compression did it, and the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.decide.ratios import counterpart, dense_variant, is_measured
from trtbench.precision import PRECISIONS
from trtbench.report.units import fixed, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbench.rows import AccuracyRecord, Row

_EXPLAINS = "`trtbench explain-int8 SUITE` names the layers, and `calibration.exclude` keeps them in higher precision"


def explained_losses(rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """Yield each candidate engine that lost more than the limit, with what there is to say of it."""
    told: set[tuple[str, str, str]] = set()
    for row in rows:
        engine = (row.variant, row.shown_precision, row.backend)
        if row.role != "candidate" or row.over_limit_pp is None or row.accuracy is None or engine in told:
            continue
        told.add(engine)
        name = f"{row.variant} {row.shown_precision} on {row.backend}"
        yield row, f"{name} {loss_words(row.accuracy, row.over_limit_pp)}. {_cause(row, row.accuracy, rows)}"


def loss_words(accuracy: AccuracyRecord, over_limit_pp: float) -> str:
    """Say how much a row lost, by how much it is beyond the limit, and of which class most of it is."""
    words = f"loses {fixed(accuracy.drop_pp)} pp, {fixed(over_limit_pp)} pp more than the limit"
    if accuracy.worst_class is None or not accuracy.class_totals:
        return words
    worst = max(range(len(accuracy.class_drops_pp)), key=accuracy.class_drops_pp.__getitem__)
    total = accuracy.class_totals[worst]
    lost = round(accuracy.class_drops_pp[worst] * total / 100)
    share = lost / max(1, round((accuracy.drop_pp or 0) * accuracy.total / 100))
    return f"{words}: class {accuracy.worst_class} lost {lost} of its {total} images, {percent(share)} % of the loss"


def _cause(row: Row, accuracy: AccuracyRecord, rows: Sequence[Row]) -> str:
    """Say what lost it, and the cure: the codes or the half type where FP32 keeps it, else what made the network."""
    measured = [one for one in rows if is_measured(one)]
    twin = counterpart(row, measured, precision="fp32")
    if twin is not None and twin is not row and twin.accuracy is not None and twin.over_limit_pp is None:
        kept = f"FP32 of the same network gets {twin.accuracy.correct - accuracy.correct} more right"
        return _cause_of_precision(row, accuracy, twin.accuracy, kept)
    dense = counterpart(row, measured, variant=dense_variant(rows), precision="fp32")
    if dense is None or dense.variant == row.variant or dense.accuracy is None:
        return "Look at its network first: nothing here keeps what it lost."
    more = dense.accuracy.correct - accuracy.correct
    return (
        f"Compression lost it: {dense.variant} gets {more} more right. Compress less, or let it learn longer"
        " (`fine_tune.epochs`)."
    )


def _cause_of_precision(row: Row, accuracy: AccuracyRecord, fp32: AccuracyRecord, kept: str) -> str:
    if not PRECISIONS[row.precision].is_int8:
        return f"{row.precision} lost it: {kept}, so ship that, or another precision."
    exact = accuracy.true_arithmetic_correct
    if exact is not None and 2 * (exact - accuracy.correct) > fp32.correct - accuracy.correct:
        more = exact - accuracy.correct
        return (
            f"This machine's kernels lost it: the same graph in exact arithmetic gets {more} more right. {_EXPLAINS}."
        )
    return f"Quantization lost it: {kept}. {_EXPLAINS}."

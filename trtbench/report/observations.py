"""What the numbers say beside the recommendation; a negative result is never hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.decide.ratios import counterpart, dense_variant, eager_of, is_measured, latency_ratio
from trtbench.precision import PRECISIONS
from trtbench.report.surprises import surprises
from trtbench.report.units import megabytes
from trtbench.report.words import ratio_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.rows import Row


def observations(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return a sentence for each measured candidate that compression made slower or larger than what it replaces.

    "Slower" means beyond the paired interval, where there is one. What explains a surprise follows.
    """
    measured = [row for row in rows if is_measured(row) and row.role == "candidate"]
    told = [sentence for row in measured for sentence in (*_int8(row, measured), *_pruned(row, measured, rows))]
    told += [sentence for row in measured for sentence in _slower(row, eager_of(row, rows), "PyTorch eager")]
    return (*dict.fromkeys(told), *surprises(rows))


def _int8(row: Row, measured: Sequence[Row]) -> tuple[str, ...]:
    if not PRECISIONS[row.precision].is_int8:
        return ()
    fp32, fp16 = (counterpart(row, measured, precision=precision) for precision in ("fp32", "fp16"))
    slower = (*_slower(row, fp32, "its FP32 twin"), *_slower(row, fp16, "its FP16 twin"))
    return (*slower, *_larger(row, fp32, "its FP32 twin"))


def _pruned(row: Row, measured: Sequence[Row], rows: Sequence[Row]) -> tuple[str, ...]:
    dense = dense_variant(rows)
    base = counterpart(row, measured, variant=dense)
    if base is None or base.macs is None or row.macs is None or row.macs >= base.macs:
        return ()
    return (*_slower(row, base, f"{dense}, though it computes less"), *_larger(row, base, dense or ""))


def _slower(row: Row, base: Row | None, than: str) -> tuple[str, ...]:
    ratio = None if base is None else latency_ratio(row, base)
    if ratio is None or not ratio.is_above_one:
        return ()
    return (f"{row.name} is slower than {than}: it takes {ratio_words(ratio)} as long.",)


def _larger(row: Row, base: Row | None, than: str) -> tuple[str, ...]:
    if base is None or row.engine_bytes is None or base.engine_bytes is None or row.engine_bytes <= base.engine_bytes:
        return ()
    sizes = f"{megabytes(row.engine_bytes)} MB against {megabytes(base.engine_bytes)} MB"
    return (f"{row.name} is larger than {than}: {sizes}.",)

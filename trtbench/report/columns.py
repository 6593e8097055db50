"""Every row flat: one column a number, unrounded in report.csv, and as people read it in report.html."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.decide.ratios import dense_fp32_of, eager_of, speed_up
from trtbench.report.table import drop_text, top1_text
from trtbench.report.units import ABSENT, fixed, megabytes, millions, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbench.rows import AccuracyRecord, LatencyRecord, Row

    Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One fact of a row: its key in report.csv, its value, and where report.html shows it, its header and its text."""

    key: str
    value: Callable[[Row, Sequence[Row]], Value]
    header: str = ""
    text: Callable[[Row, Value], str] = lambda _, value: ABSENT if value is None else str(value)


def _accuracy(take: Callable[[AccuracyRecord], Value]) -> Callable[[Row, Sequence[Row]], Value]:
    return lambda row, _: None if row.accuracy is None else take(row.accuracy)


def _latency(take: Callable[[LatencyRecord], Value]) -> Callable[[Row, Sequence[Row]], Value]:
    return lambda row, _: None if row.latency is None else take(row.latency)


def _end(interval: tuple[float, float] | None, index: int) -> float | None:
    return None if interval is None else interval[index]


def _number(write: Callable[[float | None], str]) -> Callable[[Row, Value], str]:
    return lambda _, value: write(value if isinstance(value, (int, float)) else None)


def _size(_: Row, value: Value) -> str:
    return megabytes(value if isinstance(value, int) else None)


def _count(_: Row, value: Value) -> str:
    return millions(value if isinstance(value, int) else None)


def _gain(_: Row, value: Value) -> str:
    return f"{fixed(value)}x" if isinstance(value, float) else ABSENT


_MS = _number(significant)

COLUMNS = (
    Column(key="variant", header="Variant", value=lambda row, _: row.variant),
    Column(key="precision", header="Precision", value=lambda row, _: row.precision),
    Column(key="backend", header="Backend", value=lambda row, _: row.backend),
    Column(key="device", header="Device", value=lambda row, _: row.device),
    Column(key="batch_size", header="Batch", value=lambda row, _: row.batch_size),
    Column(key="role", header="Role", value=lambda row, _: row.role),
    Column(key="status", header="Status", value=lambda row, _: row.status),
    Column(key="reason", value=lambda row, _: row.reason),
    Column(key="simulated", value=lambda row, _: row.simulated),
    Column(
        key="top1",
        header="Top-1 %",
        value=_accuracy(lambda found: found.top1),
        text=lambda row, _: top1_text(row.accuracy, decimals=2),
    ),
    Column(key="top1_low", value=_accuracy(lambda found: found.ci95[0])),
    Column(key="top1_high", value=_accuracy(lambda found: found.ci95[1])),
    Column(key="top5", value=_accuracy(lambda found: found.top5)),
    Column(key="correct", value=_accuracy(lambda found: found.correct)),
    Column(key="total", value=_accuracy(lambda found: found.total)),
    Column(
        key="drop_pp",
        header="Drop pp",
        value=_accuracy(lambda found: found.drop_pp),
        text=lambda row, _: drop_text(row.accuracy),
    ),
    Column(key="drop_upper_pp", value=_accuracy(lambda found: found.drop_upper_pp)),
    Column(key="mcnemar_p", value=_accuracy(lambda found: found.mcnemar_p)),
    Column(key="mcnemar_holm_p", value=_accuracy(lambda found: found.mcnemar_holm_p)),
    Column(key="agreement", value=_accuracy(lambda found: found.agreement)),
    Column(key="worst_class", value=_accuracy(lambda found: found.worst_class)),
    Column(key="ece", value=_accuracy(lambda found: found.ece)),
    Column(key="scope", value=_latency(lambda found: found.scope)),
    Column(key="clock", value=_latency(lambda found: found.clock)),
    Column(key="p50_ms", header="p50 ms", value=_latency(lambda found: found.p50_ms), text=_MS),
    Column(key="p50_low_ms", value=_latency(lambda found: _end(found.p50_ci95_ms, 0))),
    Column(key="p50_high_ms", value=_latency(lambda found: _end(found.p50_ci95_ms, 1))),
    Column(key="p90_ms", header="p90 ms", value=_latency(lambda found: found.p90_ms), text=_MS),
    Column(key="p95_ms", value=_latency(lambda found: found.p95_ms)),
    Column(key="p99_ms", header="p99 ms", value=_latency(lambda found: found.p99_ms), text=_MS),
    Column(key="mean_ms", value=_latency(lambda found: found.mean_ms)),
    Column(key="max_ms", value=_latency(lambda found: found.max_ms)),
    Column(key="cov", value=_latency(lambda found: found.cov)),
    Column(key="samples", value=_latency(lambda found: found.n)),
    Column(key="verdict", header="Samples", value=_latency(lambda found: found.verdict)),
    Column(key="throttled_samples", value=_latency(lambda found: found.throttled_samples)),
    Column(key="ms_per_image", header="ms/image", value=_latency(lambda found: found.ms_per_image), text=_MS),
    Column(key="throughput_ips", header="images/s", value=lambda row, _: row.throughput_ips, text=_MS),
    Column(key="ratio", value=_latency(lambda found: found.ratio)),
    Column(key="ratio_low", value=_latency(lambda found: _end(found.ratio_ci95, 0))),
    Column(key="ratio_high", value=_latency(lambda found: _end(found.ratio_ci95, 1))),
    Column(key="anchor", value=_latency(lambda found: found.anchor)),
    Column(
        key="times_as_fast_as_eager",
        header="vs eager",
        value=lambda row, rows: speed_up(row, eager_of(row, rows)),
        text=_gain,
    ),
    Column(
        key="times_as_fast_as_dense_fp32",
        header="vs dense",
        value=lambda row, rows: speed_up(row, dense_fp32_of(row, rows)),
        text=_gain,
    ),
    Column(key="engine_bytes", header="MB", value=lambda row, _: row.engine_bytes, text=_size),
    Column(key="weight_bytes", value=lambda row, _: row.weight_bytes),
    Column(key="params", header="Params, M", value=lambda row, _: row.params, text=_count),
    Column(key="macs", header="MACs, M", value=lambda row, _: row.macs, text=_count),
    Column(key="sparsity", value=lambda row, _: row.sparsity),
    Column(key="memory_bytes", header="Memory MB", value=lambda row, _: row.memory_bytes, text=_size),
    Column(key="energy_j", header="J/image", value=lambda row, _: row.energy_j, text=_MS),
    Column(key="build_s", value=lambda row, _: row.build_s),
    Column(key="load_ms", value=lambda row, _: row.load_ms),
    Column(key="first_inference_ms", value=lambda row, _: row.first_inference_ms),
    Column(key="achieved", value=lambda row, _: row.achieved),
    Column(key="engine_sha256", value=lambda row, _: row.engine_sha256),
    Column(key="notes", value=lambda row, _: "; ".join(row.notes)),
)


def to_csv(rows: Sequence[Row]) -> str:
    """Return report.csv (RFC 4180, but for the line ends): a header, then every row, numbers as in report.json."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.key for column in COLUMNS])
    for row in rows:
        writer.writerow([_written(column.value(row, rows)) for column in COLUMNS])
    return file.getvalue()


def _written(value: Value) -> Value:
    return str(value).lower() if isinstance(value, bool) else value

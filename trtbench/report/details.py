"""Tables that answer more of the rows than the first ones do: one question each, by the keys of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.decide.rank import sweeps
from trtbench.report.columns import Line
from trtbench.report.tables import ENGINE, FIDELITY, Table, engine_lines, row_lines, select, sweep_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trtbench.report.columns import Medium
    from trtbench.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """A table of one question, by the keys of its columns; `lines` picks from all rows what answers it."""

    name: str
    title: str
    keys: tuple[str, ...]
    lines: Callable[[Sequence[Row]], Iterable[Line]]
    media: tuple[Medium, ...] = ("html",)
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A table that answers a question, with what its columns mean."""

    name: str
    title: str
    table: Table
    legend: str = ""


def details(rows: Sequence[Row], medium: Medium) -> tuple[Answer, ...]:
    """Return the tables that answer more than the first ones do, as far as the rows have answers."""
    swept = sweep_table(sweeps([row for row in rows if row.role != "reference"]))
    found = [Answer(name="sweep", title="Batch size", table=swept, legend=_SWEEP_LEGEND)]
    for one in DETAILS:
        table = select(one.keys, one.lines(rows) if medium in one.media else (), medium)
        found.append(Answer(name=one.name, title=one.title, table=table, legend=one.legend))
    return tuple(one for one in found if one.table.cells)


def _has_worst_class(row: Row) -> bool:
    return row.role == "candidate" and row.accuracy is not None and row.accuracy.worst_class is not None


def _timings(rows: Sequence[Row]) -> list[Line]:
    return [
        Line(row=row, rows=rows, latency=latency)
        for row in rows
        if row.latency is not None
        for latency in (row.latency, *row.other_latencies)
    ]


def _loads(rows: Sequence[Row]) -> list[Line]:
    return [Line(row=row, rows=rows, latency=row.latency, load=load) for row in rows for load in row.loads]


_WAY = ("name", "scope", "mode")
_SWEEP_LEGEND = (
    "Knee: the smallest batch with nine tenths of the best throughput. Faster than dense from: the smallest batch from"
    " which on it is provably faster than the dense FP32 network."
)
DETAILS = (
    Detail(
        name="worst-class",
        title="The class that lost most",
        keys=(*ENGINE, "worst_class", "worst_class_drop_pp", "mcnemar_holm_p", "ece"),
        lines=lambda rows: engine_lines(rows, _has_worst_class),
        media=("md", "html"),
        legend="The drop is of the class's own images. McNemar's p is exact, and adjusted by Holm for all candidates"
        " of a batch size; the bound of the drop decides, not this p. ECE: expected calibration error, 15 bins.",
    ),
    Detail(
        name="layers",
        title="Layer precisions",
        keys=(*ENGINE, "achieved", "settings", "cores"),
        lines=lambda rows: engine_lines(rows, lambda row: row.settings or row.achieved),
    ),
    Detail(
        name="files",
        title="The files",
        keys=(*ENGINE, "engine_path", "engine_sha256"),
        lines=lambda rows: engine_lines(rows, lambda row: row.engine_path),
        media=("md", "html"),
        legend="From the folder that the run was started in. RUN being the folder of this report,"
        " `trtbench ship RUN --row ROW --output bundle` makes one ready to be run.",
    ),
    Detail(
        name="calibration",
        title="Calibration of INT8",
        keys=(*ENGINE, "calibration_method", "calibration_snr_db", "calibration_agreement", "calibration_images"),
        lines=lambda rows: engine_lines(rows, lambda row: row.calibration),
        media=("md", "html"),
        legend="Beside the float graph on training images that did not calibrate: no label, no test image is looked at."
        " The signal-to-noise ratio is of the logits less their mean over the classes.",
    ),
    Detail(
        name="load",
        title="Under load",
        keys=(
            *("name", "load_scenario", "load_streams", "load_rate", "load_requests", "load_throughput_ips"),
            *("load_p50_ms", "load_p90_ms", "load_p99_ms", "load_max_ms", "load_p99_limit_ms", "load_holds"),
        ),
        lines=_loads,
        media=("md", "html"),
        legend="Requests that arrive at a rate are timed from when they were due, so that a queue counts in full.",
    ),
    Detail(
        name="cold",
        title="Cold start and memory",
        keys=("name", "build_s", "load_ms", "first_inference_ms", "device_memory_bytes", "host_memory_bytes"),
        lines=lambda rows: row_lines([row for row in rows if row.load_ms is not None]),
    ),
    Detail(
        name="other-ways",
        title="Timed in other ways",
        keys=(*_WAY, "launches_per_sample", "p50_ms", "p90_ms", "p99_ms", "ms_per_image"),
        lines=lambda rows: _timings([row for row in rows if row.other_latencies]),
        media=("md", "html"),
        legend="Scope host-to-host has the copies in and out, device has not; end-to-end begins with the bytes of PNG"
        " files of the network's size: it has decoding and preprocessing too, on one thread. In mode throughput a"
        " sample holds several launches, and the figures are of one of them.",
    ),
    Detail(
        name="parts",
        title="Where the time goes",
        keys=("name", "h2d_ms", "enqueue_ms", "compute_ms", "d2h_ms", "is_enqueue_bound"),
        lines=lambda rows: row_lines([row for row in rows if row.latency is not None and row.latency.parts_ms]),
        media=("md", "html"),
        legend="Medians. Launching is done by the host while the device computes; a row is launch-bound where it takes"
        " more than eight tenths of the computing.",
    ),
    Detail(
        name="builds",
        title="Repeated builds",
        keys=("name", "p50_ms", "builds_p50_ms"),
        lines=lambda rows: row_lines([row for row in rows if row.builds_p50_ms]),
        media=("md", "html"),
        legend="The build in the middle stands for the row.",
    ),
    Detail(
        name="scores",
        title="How each engine was scored",
        keys=(
            *(*ENGINE, "correct", "total", "drop_upper_pp", "top5", "lost", "gained", "agreement"),
            *("true_arithmetic_correct", "tensorrt_graph_correct", "mcnemar_p", "mcnemar_holm_p"),
            *("loss", "ece", "is_chance"),
        ),
        lines=lambda rows: engine_lines(rows, lambda row: row.accuracy),
        legend="Agreement: images whose first class is that of the dense network. True arithmetic: what the same Q/DQ"
        " graph gets right without the runtime's kernels. TensorRT's graph: what the Q/DQ graph for TensorRT gets right"
        " in exact arithmetic, a forecast that qualifies no row.",
    ),
    Detail(
        name="fidelity",
        title="How near each engine comes to the float network",
        keys=(*ENGINE, "fidelity_images", *FIDELITY, "fidelity_outputs"),
        lines=lambda rows: engine_lines(rows, lambda row: row.fidelity),
        legend="By output: 10 log10 of the power of the float network's output over that of the difference, and the"
        " largest absolute difference. Of an output whose channels are of several scales, more than ten apart, those of"
        " each scale are judged by themselves, and the worst are named.",
    ),
    Detail(
        name="by-class",
        title="Right by class",
        keys=(*ENGINE, "per_class", "class_totals"),
        lines=lambda rows: engine_lines(rows, lambda row: row.accuracy is not None and row.accuracy.per_class),
    ),
    Detail(
        name="timings",
        title="How each row was timed",
        keys=(
            *(*_WAY, "clock", "launches_per_sample", "samples", "min_ms", "p50_ms", "p50_ci95_ms", "p90_ms"),
            *("p95_ms", "p99_ms", "max_ms", "mean_ms", "cov"),
        ),
        lines=_timings,
        legend="CoV: standard deviation over mean.",
    ),
    Detail(
        name="steadiness",
        title="How steady the samples were",
        keys=(*_WAY, "verdict", "p50_by_process_ms", "throttled_samples", "warm_up_ms", "warm_up_inferences"),
        lines=_timings,
        legend="Narrow: the 95 % interval of the median lies within 5 % of it.",
    ),
    Detail(
        name="paired",
        title="Timed beside the anchor",
        keys=("name", "ratio", "anchor"),
        lines=lambda rows: row_lines([row for row in rows if row.latency is not None and row.latency.ratio]),
        legend="Ratio of interleaved blocks with its 95 % interval; ratios of rows rest on these.",
    ),
    Detail(
        name="networks",
        title="Networks and files",
        keys=(*ENGINE, "params", "macs", "sparsity", "engine_bytes", "weight_bytes", "engine_sha256", "widths"),
        lines=lambda rows: engine_lines(rows, lambda row: row.engine_sha256 or row.params),
    ),
)

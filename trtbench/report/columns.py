"""The one list of what is shown of a row: each column's key, header, unit, value and text, and where it is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from trtbench.decide.limits import confidence_each, shown_bound_pp
from trtbench.decide.ratios import dense_fp32_of, dense_variant, eager_of, is_cpu, speed_up
from trtbench.report.units import ABSENT, decibels, fixed, megabytes, millions, percent, probability, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trtbench.rows import CalibrationRecord, FidelityRecord, LatencyRecord, LoadRecord, Row, ScoreRecord

    Value = str | float | bool | tuple[float, ...] | Mapping[str, Any] | None

Medium = Literal["terminal", "md", "html", "csv"]
Align = Literal["left", "right"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one line of a table is about: a row among all rows of its report, and one of its latencies or loads.

    `alike` are the rows that share the line, by default the row alone; `marks` are the numbers of its notes.
    """

    row: Row
    rows: Sequence[Row]
    latency: LatencyRecord | None = None
    load: LoadRecord | None = None
    alike: tuple[Row, ...] = ()
    marks: str = ""


def _plain(_: Line, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One fact of a line: `value` unrounded, as report.csv has it, and `text` as people read it in all other places.

    `key` names it in report.csv and in the selections of `tables`. Words align left, numbers right.
    """

    key: str
    header: str
    value: Callable[[Line], Value]
    unit: str = ""
    text: Callable[[Line, Any], str] = _plain
    shown_in: frozenset[Medium] = frozenset({"terminal", "md", "html", "csv"})
    align: Align = "right"

    @property
    def title(self) -> str:
        """The header with its unit, as it stands over a table."""
        return f"{self.header} {self.unit}".strip()

    def cell(self, line: Line) -> str:
        """Return the text of a line; a dash where there is no value."""
        return self.text(line, self.value(line)) if self.has(line) else ABSENT

    def has(self, line: Line) -> bool:
        """Whether a line has a value: a number, or something that is not empty."""
        value = self.value(line)
        return isinstance(value, (int, float)) or bool(value)


def _of(record: Callable[[Line], Any], *, prefix: str = "") -> Callable[..., Column]:
    """Return what makes columns of a record of a line: of the field that the key names, or what `take` makes of it."""

    def column(key: str, header: str, take: Callable[[Any], Value] | None = None, **faces: Any) -> Column:
        read = take or attrgetter(key.removeprefix(prefix))
        return Column(
            key=key, header=header, value=lambda line: None if record(line) is None else read(record(line)), **faces
        )

    return column


_line = _of(lambda line: line)
_row = _of(lambda line: line.row)
_accuracy = _of(lambda line: line.row.accuracy)
_fidelity = _of(lambda line: line.row.fidelity, prefix="fidelity_")
_calibration = _of(lambda line: line.row.calibration, prefix="calibration_")
_latency = _of(lambda line: line.latency)
_load = _of(lambda line: line.load, prefix="load_")


def _number(write: Callable[[Any], str], *, between: str = " ") -> Callable[[Line, Any], str]:
    """Write a number by one of the `units`, each of several the same way."""
    return lambda _, value: between.join(map(write, value)) if isinstance(value, tuple) else write(value)


def _end(interval: tuple[float, float] | None, index: int) -> float | None:
    return None if interval is None else interval[index]


def _top1(line: Line, top1: float) -> str:
    assert line.row.accuracy is not None, "a row with top-1 is scored"
    low, high = (fixed(100 * end, decimals=1) for end in line.row.accuracy.ci95)
    return f"{percent(top1)} ({low}-{high})"


def _drop(line: Line, drop_pp: float) -> str:
    assert line.row.accuracy is not None, "a row with a drop is scored"
    bound = _drop_bound_pp(line)
    return _marked(line, fixed(drop_pp) if bound is None else f"{fixed(drop_pp)} <={fixed(bound)}")


def _over_limit(line: Line, drop_pp: float) -> str:
    return _marked(line, fixed(drop_pp))


def _marked(line: Line, text: str) -> str:
    """Mark the drop of a row that lost more than the limit."""
    return text if line.row.over_limit_pp is None else f"{text} {OVER_LIMIT}"


def _drop_bound_pp(line: Line) -> float | None:
    return shown_bound_pp(line.row, line.rows)


def _beside(base: Callable[[Row, Sequence[Row]], Row | None]) -> Callable[[Line], float | None]:
    return lambda line: speed_up(line.row, base(line.row, line.rows))


def _low_fidelity(line: Line) -> float | None:
    found = line.row.fidelity
    low = math.inf if found is None else found.low_db(confidence=confidence_each(line.row.together))
    return None if math.isinf(low) else low


def _score_bound(line: Line) -> float | None:
    score = line.row.fidelity and line.row.fidelity.score
    return score.drop_upper(engines=line.row.together) if score else None


def _of_score(take: Callable[[ScoreRecord], float]) -> Callable[[FidelityRecord], float | None]:
    return lambda found: None if found.score is None else take(found.score)


def _same_largest(found: FidelityRecord) -> float | None:
    """Return the share of images whose largest number is the same one, in the output where it is least."""
    return min((one.agreement for one in found.outputs if one.agreement is not None), default=None)


def _by_output(found: FidelityRecord) -> str:
    return "; ".join(
        f"{one.name} {decibels(one.snr_db)}"
        + (f" (channels {one.channels} {decibels(one.channels_snr_db)})" if one.channels else "")
        + f", largest error {significant(one.max_error)}"
        for one in found.outputs
    )


def _channels_gone(line: Line) -> float | None:
    """Return the share of the dense network's output channels that a row's network lacks; None where it lacks none."""
    dense = dense_variant(line.rows)
    full = next((sum(row.widths) for row in line.rows if row.variant == dense and row.widths), 0)
    here = sum(line.row.widths)
    return 1 - here / full if 0 < here < full else None


def _ratio(line: Line, ratio: float) -> str:
    interval = None if line.latency is None else line.latency.ratio_ci95
    ends = "" if interval is None else f" ({fixed(interval[0], decimals=3)}-{fixed(interval[1], decimals=3)})"
    return f"{fixed(ratio, decimals=3)}{ends}"


def _other(field: str, *, scope: str, mode: str) -> Callable[[Row], float | None]:
    """Take a field of the latency of a row that was timed in another way than the plain one."""

    def take(row: Row) -> float | None:
        found = (one for one in row.other_latencies if (one.scope, one.mode) == (scope, mode))
        return next((getattr(one, field) for one in found), None)

    return take


def _rest_bytes(row: Row) -> int | None:
    """Return what of the file is no weights."""
    return None if row.engine_bytes is None else row.engine_bytes - min(row.weight_bytes or 0, row.engine_bytes)


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _settings(_: Line, settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_setting(value)}" for key, value in settings.items())


def _method(found: CalibrationRecord) -> str:
    return found.method if not found.mse_tensors else f"{found.method}, mse for {found.mse_tensors} tensors"


def _on_cpu(line: Line, backend: str) -> str:
    return f"{backend} (CPU)" if is_cpu(line.row) and "cpu" not in backend else backend


_HOST_TO_HOST = _other("p50_ms", scope="host-to-host", mode="latency")
_IN_THROUGHPUT = _other("ms_per_image", scope="device", mode="throughput")
OVER_LIMIT = "!"  # beside a drop: more than the limit was lost
_MS = _number(significant)
_P = _number(probability)
_MB = _number(megabytes)
_MILLIONS = _number(millions)
_PERCENT = _number(percent)
_FIXED = _number(fixed)
_THREE = _number(lambda value: fixed(value, decimals=3))
_INTERVAL = _number(significant, between="-")
_TIMES = _number(lambda value: f"{fixed(value)}x")

_FILES: frozenset[Medium] = frozenset({"md", "html", "csv"})
_NOT_MD: frozenset[Medium] = frozenset({"terminal", "html", "csv"})
_PAGES: frozenset[Medium] = frozenset({"md", "html"})
_HTML: frozenset[Medium] = frozenset({"html"})
_HTML_CSV: frozenset[Medium] = frozenset({"html", "csv"})
_CSV: frozenset[Medium] = frozenset({"csv"})

COLUMNS = (
    # what report.csv has had from the first, in its order
    _row("variant", "Variant", align="left"),
    _row("precision", "Precision", text=lambda line, _: line.row.shown_precision, align="left"),
    _row("backend", "Backend", shown_in=_FILES, align="left"),
    _row("device", "Device", shown_in=_FILES, align="left"),
    _line(
        "batch_size",
        "Batch",
        lambda line: line.row.batch_size,
        text=lambda line, size: ", ".join(str(row.batch_size) for row in line.alike) or str(size),
    ),
    _row("role", "Role", shown_in=_HTML_CSV, align="left"),
    _row("status", "Status", align="left"),
    _row("reason", "Reason", shown_in=frozenset({"md", "csv"}), align="left"),
    _row("simulated", "Simulated", shown_in=_CSV),
    _accuracy("top1", "Top-1", unit="%", text=_top1),
    _accuracy("top1_low", "Top-1 low", lambda found: found.ci95[0], unit="%", text=_PERCENT, shown_in=_CSV),
    _accuracy("top1_high", "Top-1 high", lambda found: found.ci95[1], unit="%", text=_PERCENT, shown_in=_CSV),
    _accuracy("top5", "Top-5", unit="%", text=_PERCENT, shown_in=_HTML_CSV),
    _accuracy("correct", "Right", shown_in=_HTML_CSV),
    _accuracy("total", "Images", shown_in=_HTML_CSV),
    _accuracy("drop_pp", "Drop", unit="pp", text=_drop, shown_in=_FILES),
    _line("drop_upper_pp", "Drop <=", _drop_bound_pp, unit="pp", text=_over_limit, shown_in=_NOT_MD),
    _row("together", "Bounded together", shown_in=_CSV),
    _row("over_limit_pp", "Over the limit", unit="pp", text=_FIXED, shown_in=_HTML_CSV),
    _accuracy("mcnemar_p", "McNemar p", text=_P, shown_in=_HTML_CSV),
    _accuracy("lost", "Lost", shown_in=_HTML_CSV),
    _accuracy("gained", "Gained", shown_in=_HTML_CSV),
    _accuracy("mcnemar_holm_p", "McNemar p (Holm)", text=_P, shown_in=_FILES),
    _accuracy("agreement", "Agreement", unit="%", text=_PERCENT, shown_in=_HTML_CSV),
    _accuracy("worst_class", "Worst class", shown_in=_FILES, align="left"),
    _fidelity("score", "Score", _of_score(lambda score: score.mean), text=_MS),
    _fidelity("score_drop", "Score drop", _of_score(lambda score: score.drop), text=_MS, shown_in=_FILES),
    _line("score_drop_upper", "Score drop <=", _score_bound, text=_MS),
    _fidelity("fidelity_db", "Fidelity", lambda found: found.snr_db, unit="dB", text=_FIXED),
    _line("fidelity_low_db", "Fidelity >=", _low_fidelity, unit="dB", text=_FIXED, shown_in=_FILES),
    _fidelity("fidelity_worst", "Worst output", shown_in=_FILES, align="left"),
    _fidelity(
        "fidelity_max_error",
        "Largest error",
        lambda found: max(one.max_error for one in found.outputs),
        text=_MS,
        shown_in=_FILES,
    ),
    _fidelity("fidelity_agreement", "Same largest", _same_largest, unit="%", text=_PERCENT, shown_in=_FILES),
    _fidelity("fidelity_outputs", "By output", _by_output, shown_in=_HTML_CSV, align="left"),
    _fidelity("fidelity_images", "Images compared", shown_in=_HTML_CSV),
    _accuracy("loss", "Test loss", text=_MS, shown_in=_FILES),
    _accuracy("ece", "ECE", text=_THREE, shown_in=_FILES),
    _latency("scope", "Scope", shown_in=_FILES, align="left"),
    _latency("clock", "Clock", shown_in=_HTML_CSV, align="left"),
    _latency("p50_ms", "p50", unit="ms", text=_MS),
    _latency("p50_low_ms", "p50 low", lambda found: _end(found.p50_ci95_ms, 0), unit="ms", text=_MS, shown_in=_CSV),
    _latency("p50_high_ms", "p50 high", lambda found: _end(found.p50_ci95_ms, 1), unit="ms", text=_MS, shown_in=_CSV),
    _latency("p90_ms", "p90", unit="ms", text=_MS, shown_in=_FILES),
    _latency("p95_ms", "p95", unit="ms", text=_MS, shown_in=_HTML_CSV),
    _latency("p99_ms", "p99", unit="ms", text=_MS, shown_in=_FILES),
    _latency("mean_ms", "Mean", unit="ms", text=_MS, shown_in=_HTML_CSV),
    _latency("max_ms", "Max", unit="ms", text=_MS, shown_in=_HTML_CSV),
    _latency("cov", "CoV", text=_THREE, shown_in=_HTML_CSV),
    _latency("samples", "Samples", lambda found: found.n, shown_in=_HTML_CSV),
    _latency("verdict", "Verdict", shown_in=_HTML_CSV, align="left"),
    _latency("throttled_samples", "Throttled", shown_in=_HTML_CSV),
    _latency("ms_per_image", "ms/image", text=_MS, shown_in=_FILES),
    _row("throughput_ips", "images/s", text=_MS, shown_in=_HTML_CSV),
    _latency("ratio", "Time over the anchor's", text=_ratio, shown_in=_HTML_CSV),
    _latency("ratio_low", "Ratio low", lambda found: _end(found.ratio_ci95, 0), text=_THREE, shown_in=_CSV),
    _latency("ratio_high", "Ratio high", lambda found: _end(found.ratio_ci95, 1), text=_THREE, shown_in=_CSV),
    _latency("anchor", "Anchor", shown_in=_HTML_CSV, align="left"),
    _line("times_as_fast_as_eager", "vs eager", _beside(eager_of), text=_TIMES),
    _line("times_as_fast_as_dense_fp32", "vs dense", _beside(dense_fp32_of), text=_TIMES),
    _row("engine_bytes", "File", unit="MB", text=_MB),
    _row("weight_bytes", "Weights", unit="MB", text=_MB, shown_in=_FILES),
    _line("cut", "Cut", _channels_gone, unit="%", text=_PERCENT, shown_in=_FILES),
    _row("params", "Params", unit="M", text=_MILLIONS, shown_in=_FILES),
    _row("macs", "MACs", unit="M", text=_MILLIONS, shown_in=_FILES),
    _row("sparsity", "Zeros", unit="%", text=_PERCENT, shown_in=_HTML_CSV),
    _row("device_memory_bytes", "GPU memory", unit="MB", text=_MB, shown_in=_HTML_CSV),
    _row("host_memory_bytes", "Host memory", unit="MB", text=_MB, shown_in=_HTML_CSV),
    _row("energy_j", "J/image", text=_MS, shown_in=_HTML_CSV),
    _row("build_s", "Build", unit="s", text=_MS, shown_in=_FILES),
    _row("load_ms", "Load", unit="ms", text=_MS, shown_in=_HTML_CSV),
    _row("first_inference_ms", "First inference", unit="ms", text=_MS, shown_in=_HTML_CSV),
    _row("achieved", "Layers achieved", shown_in=_FILES, align="left"),
    _row("engine_sha256", "sha256", text=lambda _, sha256: sha256[:12], shown_in=_HTML_CSV, align="left"),
    _row("notes", "Notes", lambda row: "; ".join(row.notes), shown_in=_CSV, align="left"),
    # what is said of a row by other columns together, or with less room
    _row("name", "Row", shown_in=_PAGES, align="left"),
    _row("runs_on", "Backend", lambda row: row.backend, text=_on_cpu, shown_in=frozenset({"terminal"}), align="left"),
    _line("marks", "Note", lambda line: line.marks, shown_in=frozenset({"terminal", "md"})),
    _latency("p50_ci95_ms", "95 % interval", unit="ms", text=_INTERVAL, shown_in=_HTML),
    _accuracy(
        "worst_class_drop_pp",
        "Its drop",
        lambda found: max(found.class_drops_pp, default=None),
        unit="pp",
        text=_FIXED,
        shown_in=_PAGES,
    ),
    _row("rest_bytes", "The rest", _rest_bytes, unit="MB", text=_MB, shown_in=_HTML),
    # how it was scored
    _accuracy("is_chance", "Chance level", shown_in=_HTML_CSV),
    _accuracy("true_arithmetic_correct", "Right in true arithmetic", shown_in=_HTML_CSV),
    _accuracy("tensorrt_graph_correct", "Right in TensorRT's graph", shown_in=_HTML_CSV),
    _accuracy("per_class", "Right by class", shown_in=_HTML_CSV, align="left"),
    _accuracy("class_totals", "Images by class", shown_in=_HTML_CSV, align="left"),
    _accuracy("class_drops_pp", "Drop by class", unit="pp", text=_FIXED, shown_in=_CSV),
    # how it was calibrated
    _calibration("calibration_method", "Calibrated by", _method, shown_in=_FILES, align="left"),
    _calibration("calibration_snr_db", "Logits' SNR", unit="dB", text=_FIXED, shown_in=_FILES),
    _calibration("calibration_agreement", "Same class as FP32", unit="%", text=_PERCENT, shown_in=_FILES),
    _calibration("calibration_images", "Held-out images", shown_in=_FILES),
    # how it was timed
    _latency("mode", "Mode", shown_in=_FILES, align="left"),
    _latency("launches_per_sample", "Launches", shown_in=_FILES),
    _latency("min_ms", "Min", unit="ms", text=_MS, shown_in=_HTML_CSV),
    _latency("p50_by_process_ms", "p50 of each process", unit="ms", text=_MS, shown_in=_HTML_CSV),
    _latency("warm_up_ms", "Warm-up", unit="ms", text=_MS, shown_in=_HTML_CSV),
    _latency("warm_up_inferences", "Warm-up runs", shown_in=_HTML_CSV),
    _latency("h2d_ms", "Copy in", lambda found: found.parts_ms.get("h2d"), unit="ms", text=_MS, shown_in=_FILES),
    _latency("enqueue_ms", "Launch", lambda found: found.parts_ms.get("enqueue"), unit="ms", text=_MS, shown_in=_FILES),
    _latency(
        "compute_ms", "Compute", lambda found: found.parts_ms.get("compute"), unit="ms", text=_MS, shown_in=_FILES
    ),
    _latency("d2h_ms", "Copy out", lambda found: found.parts_ms.get("d2h"), unit="ms", text=_MS, shown_in=_FILES),
    _latency("is_enqueue_bound", "Launch-bound", shown_in=_FILES),
    _row("host_to_host_p50_ms", "host-to-host p50", _HOST_TO_HOST, unit="ms", text=_MS, shown_in=_FILES),
    _row("throughput_mode_ms_per_image", "throughput ms/image", _IN_THROUGHPUT, text=_MS, shown_in=_HTML_CSV),
    _row("builds_p50_ms", "p50 of each build", unit="ms", text=_MS, shown_in=_FILES),
    # what was built and opened
    _row("engine_path", "Engine file", shown_in=_FILES, align="left"),
    _row("sparse", "Sparse", shown_in=_CSV),
    _row("rescued", "Rescued", shown_in=_CSV),
    _row("build", "Build number", shown_in=_CSV),
    _row("widths", "Widths", shown_in=_HTML_CSV, align="left"),
    _row("settings", "Opened with", text=_settings, shown_in=_HTML, align="left"),
    _row("cores", "Cores", shown_in=_HTML_CSV, align="left"),
    # how it bears a load
    _load("load_scenario", "Load", shown_in=_PAGES, align="left"),
    _load("load_streams", "In flight", shown_in=_PAGES),
    _load("load_rate", "Due a second", text=_MS, shown_in=_PAGES),
    _load("load_requests", "Requests", lambda found: found.n, shown_in=_PAGES),
    _load("load_throughput_ips", "images/s", text=_MS, shown_in=_PAGES),
    _load("load_p50_ms", "p50", unit="ms", text=_MS, shown_in=_PAGES),
    _load("load_p90_ms", "p90", unit="ms", text=_MS, shown_in=_PAGES),
    _load("load_p99_ms", "p99", unit="ms", text=_MS, shown_in=_PAGES),
    _load("load_max_ms", "Max", unit="ms", text=_MS, shown_in=_PAGES),
    _load("load_p99_limit_ms", "p99 limit", unit="ms", text=_MS, shown_in=_PAGES),
    _load("load_holds", "Limit holds", shown_in=_PAGES),
)
COLUMN = {column.key: column for column in COLUMNS}

"""What is to be said of rows beside the recommendation: notes, a loss, a gain that is missing and its cause, advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbench.bench.paired_drop import smallest_provable_drop
from trtbench.decide.ratios import counterpart, dense_variant, eager_of, is_cpu, is_measured, latency_ratio, p50_ms
from trtbench.precision import PRECISIONS, shown_precision
from trtbench.report.units import fixed, megabytes, percent, significant
from trtbench.report.words import ratio_words, short_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from trtbench.decide.ratios import PairedRatio
    from trtbench.report.document import Report
    from trtbench.rows import AccuracyRecord, Row

_LAUNCH_BOUND = 1.5  # a batch at least 8 times as large that takes at most this many times as long
_LARGER_BATCH = 8
_PROMISED = 0.8  # share of the MACs at or below which a row should be faster
_KEPT_PROMISE = 0.5  # share of the promised gain below which the rest is worth a remark
_COUNTS_SHOWN = 6  # channel counts that a line has room for
_STEAL = 0.01  # a median share of stolen time worth a word
_BUSY = 1.5  # load for each core, above which others use the machine
_WANDERING = 0.9  # a clock whose lowest reading is below this share of the highest
_EXPLAINS = "`trtbench explain-int8 SUITE` names the layers, and `calibration.exclude` keeps them in higher precision"


@dataclass(frozen=True, slots=True)
class Footnotes:
    """Distinct texts in the order of their first row; a row's marks are their numbers, from 1."""

    texts: tuple[str, ...]

    def marks(self, *rows: Row) -> str:
        """Return the marks of these rows together, ascending."""
        wanted = {text for row in rows for text in remarks(row)}
        return " ".join(str(number) for number, text in enumerate(self.texts, start=1) if text in wanted)

    def lines(self) -> tuple[str, ...]:
        """Return each mark with its text."""
        return tuple(f"{number}: {text}" for number, text in enumerate(self.texts, start=1))


def footnotes(rows: Sequence[Row]) -> Footnotes:
    """Collect the remarks of all rows, each once."""
    return Footnotes(_once(text for row in rows for text in remarks(row)))


def remarks(row: Row) -> tuple[str, ...]:
    """Return what is to be said of a row by itself: its failure, what its numbers are not, and its own notes."""
    return _once(_of_row(row))


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def observed(report: Report, *, batch_size: int | None = None) -> tuple[str, ...]:
    """Return the observations of a report, or of one batch size; those of an earlier version are made of its rows."""
    if report.observations is None:
        return observations([row for row in report.rows if batch_size in {None, row.batch_size}])
    elsewhere = [row for row in report.rows if batch_size not in {None, row.batch_size}]
    named = tuple(start for row in elsewhere for start in (f"{row.name} ", f"{_place(row)} "))
    return tuple(text for text in report.observations if not text.startswith(named))


def observations(rows: Sequence[Row], *, paired: PairedRatio | None = None) -> tuple[str, ...]:
    """Return what lost more than the limit, and what compression made slower or larger: no negative result is hidden.

    "Slower" means beyond the paired interval, where there is one. What explains a surprise follows.

    Args:
        rows: every row of the report.
        paired: as the choice is told it, so that both say the same of two rows.
    """
    measured = [row for row in rows if is_measured(row) and row.role == "candidate"]
    found = [*explained_losses(rows)]
    for row in measured:
        found += [*_int8(row, measured, paired), *_pruned(row, measured, rows, paired)]
    found += [one for row in measured for one in _slower(row, eager_of(row, rows), "PyTorch eager", paired)]
    return _once((*found, *surprises(rows, paired=paired)))


def surprises(rows: Sequence[Row], *, paired: PairedRatio | None = None) -> tuple[str, ...]:
    """Return each cause that can be seen why a row is no faster than its arithmetic promises."""
    measured = [row for row in rows if is_measured(row) and row.role == "candidate"]
    dense = dense_variant(rows)
    found = [one for row in measured for one in (*_misaligned(row), *_launch_bound(row, measured))]
    return _once((*found, *(one for row in measured for one in _broken_promise(row, measured, dense, paired))))


def advice(rows: Sequence[Row], telemetry: Mapping[str, Any], environment: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what disturbed the measurement and can be mended by the user, and how many samples are flagged.

    Args:
        rows: every row of the report.
        telemetry: by device, as `bench.telemetry.summary` tells it.
        environment: of the report.
    """
    found = list(_flagged(rows))
    for device, figures in telemetry.items():
        found += _of_cpu(figures, environment) if device == "cpu" else _of_gpu(device, figures)
    return _once(found)


def misaligned_widths(row: Row) -> tuple[int, ...]:
    """Return the distinct channel counts that tensor cores compute padded; a CPU, and plain FP32, do not."""
    if is_cpu(row) or row.precision == "fp32":
        return ()
    step = PRECISIONS[row.precision].channel_step
    return tuple(sorted({count for count in row.widths if count % step}))


def is_launch_bound(row: Row, measured: Sequence[Row]) -> bool:
    """Whether launching takes the time, not computing: the runtime says so, or a far larger batch costs little more."""
    assert row.latency is not None, "measured rows have a latency"
    if row.latency.is_enqueue_bound is not None:
        return row.latency.is_enqueue_bound
    return any(
        other.latency is not None and other.latency.p50_ms <= _LAUNCH_BOUND * row.latency.p50_ms
        for other in measured
        if (row.engine, row.device) == (other.engine, other.device)
        and other.batch_size >= _LARGER_BATCH * row.batch_size
    )


def _of_row(row: Row) -> Iterator[str]:
    latency = row.latency
    if row.status != "ok":
        yield f"{row.status}: {row.reason or 'no reason was recorded'}"
    if row.simulated:
        yield "simulated under a test double: no measurement, never ranked"
    if latency is not None and latency.throttled_samples:
        yield f"{latency.throttled_samples} of {latency.n} samples were taken while the device held back"
    if row.accuracy is not None and row.over_limit_pp is not None:
        yield loss_words(row.accuracy, row.over_limit_pp)
    yield from row.notes
    if row.accuracy is not None and row.accuracy.true_arithmetic_correct is not None:
        yield from _kernels(row.accuracy, row.accuracy.true_arithmetic_correct)
    if row.builds_p50_ms:
        spread = " to ".join(significant(end(row.builds_p50_ms), digits=4) for end in (min, max))
        shipped = f"the median one is shipped, sha256 {(row.engine_sha256 or '')[:12]}"
        yield f"{len(row.builds_p50_ms)} builds: p50 {spread} ms; {shipped}"


def _kernels(accuracy: AccuracyRecord, exact: int) -> Iterator[str]:
    """Say what of an INT8 drop is the runtime's kernels, and what was lost before they ran."""
    lost = exact - accuracy.correct
    if lost:
        than = f"{abs(lost)} {'fewer' if lost > 0 else 'more'}"
        yield f"this machine's kernels get {than} than the same graph in exact arithmetic, {exact} right"
    elif (accuracy.drop_pp or 0) > 0:
        yield "the kernels lost nothing, its codes or its network did: exact arithmetic gets as many right"


def _int8(row: Row, measured: Sequence[Row], paired: PairedRatio | None) -> Iterator[str]:
    if not PRECISIONS[row.precision].is_int8:
        return
    fp32, fp16 = (counterpart(row, measured, precision=precision) for precision in ("fp32", "fp16"))
    yield from _slower(row, fp32, "its FP32 twin", paired)
    yield from _slower(row, fp16, "its FP16 twin", paired)
    yield from _larger(row, fp32, "its FP32 twin")


def _pruned(row: Row, measured: Sequence[Row], rows: Sequence[Row], paired: PairedRatio | None) -> Iterator[str]:
    dense = dense_variant(rows)
    base = counterpart(row, measured, variant=dense)
    if base is None or base.macs is None or row.macs is None or row.macs >= base.macs:
        return
    yield from _slower(row, base, f"{dense}, though it computes less", paired)
    yield from _larger(row, base, dense or "")


def _slower(row: Row, base: Row | None, than: str, paired: PairedRatio | None) -> Iterator[str]:
    ratio = None if base is None else latency_ratio(row, base, paired=paired)
    if ratio is not None and ratio.is_above_one:
        yield f"{row.name} is slower than {than}: it takes {ratio_words(ratio)} as long."


def _larger(row: Row, base: Row | None, than: str) -> Iterator[str]:
    if base is None or row.engine_bytes is None or base.engine_bytes is None or row.engine_bytes <= base.engine_bytes:
        return
    sizes = f"{megabytes(row.engine_bytes)} MB against {megabytes(base.engine_bytes)} MB"
    yield f"{row.name} is larger than {than}: {sizes}."


def _misaligned(row: Row) -> Iterator[str]:
    counts = misaligned_widths(row)
    if not counts:
        return
    step = PRECISIONS[row.precision].channel_step
    shown = ", ".join(map(str, counts[:_COUNTS_SHOWN])) + (" ..." if len(counts) > _COUNTS_SHOWN else "")
    padded = f"{short_name(row)} has channel counts that are no multiple of {step} ({shown})"
    yield f"{padded}: tensor cores compute them padded, so measure round_to: {step} beside it, which may take as long."


def _launch_bound(row: Row, measured: Sequence[Row]) -> Iterator[str]:
    if is_launch_bound(row, measured):
        is_open_to_graphs = not is_cpu(row) and row.settings.get("cuda_graph") is not True
        others = " or a CUDA graph" if is_open_to_graphs else ""
        cure = f"fewer MACs cannot make it faster there; a larger batch{others} can"
        yield f"{_place(row)} is launch-bound: {cure}."


def _place(row: Row) -> str:
    return f"{short_name(row)} on {row.backend} at batch {row.batch_size}"


def _broken_promise(row: Row, measured: Sequence[Row], dense: str | None, paired: PairedRatio | None) -> Iterator[str]:
    """Explain a pruned row that is not as much faster as its MACs promise."""
    base = counterpart(row, measured, variant=dense)
    if base is None or base is row or not row.macs or not base.macs or row.macs > _PROMISED * base.macs:
        return
    ratio = latency_ratio(row, base, paired=paired)
    assert ratio is not None  # both are measured, at one batch size
    promised, took = row.macs / base.macs, ratio.value
    if 1 - took < _KEPT_PROMISE * (1 - promised):
        shares = f"computes {fixed(promised)} of the MACs of {short_name(base)} and takes {fixed(took)} of its time"
        yield f"{row.name} {shares}: {_cause(row, base, measured)}."


def _cause(row: Row, base: Row, measured: Sequence[Row]) -> str:
    """Return the likeliest of the known causes, with what speaks for it."""
    if is_launch_bound(row, measured):
        return "it is launch-bound"
    if misaligned_widths(row) and not misaligned_widths(base):
        return "its channel counts are misaligned"
    return (
        f"it reaches {significant(_rate(row))} GMAC/s where {short_name(base)} reaches {significant(_rate(base))}, as a"
        " network does that is bound by memory or by the overhead of its layers, not by arithmetic"
    )


def _rate(row: Row) -> float:
    return (row.macs or 0) * row.batch_size / p50_ms(row) / 1e6  # GMAC/s


def caveats(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the limits of these rows, each in a sentence or two."""
    measured = [row for row in rows if row.latency is not None]
    if any(is_cpu(row) for row in measured):
        yield "CPU rows tell the latency of this CPU and nothing about a GPU."
    if any(row.simulated for row in rows):
        yield "Simulated rows come from a test double and are no measurement."
    for total in sorted({row.accuracy.total for row in rows if row.accuracy is not None}):
        smallest = fixed(100 * smallest_provable_drop(total))
        yield (
            f"Accuracy was counted on {total:,} test images: with none lost or gained they show a drop below"
            f" {smallest} pp, and nothing finer. Each bound holds for its row, not for all rows at once, and the"
            " winner was chosen on the same images."
        )
    if measured:
        yield (
            "Latency is of one build of each engine, in one session on one machine; another build or another day may"
            " differ by more than the intervals here."
        )
    if any(row.latency is not None and row.latency.p99_ms is None for row in measured):
        yield "p99 is left out where a row has fewer than 1,000 samples."


def _flagged(rows: Sequence[Row]) -> Iterator[str]:
    latencies = [row.latency for row in rows if row.latency is not None]
    if flagged := sum(latency.throttled_samples or 0 for latency in latencies):
        total = sum(latency.n for latency in latencies)
        yield f"{flagged:,} of {total:,} samples were taken while the machine held back; they are kept."


def _of_cpu(figures: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[str]:
    host = environment.get("host", {})
    cpu = host.get("cpu", {}) if isinstance(host, dict) else {}
    cores = cpu.get("logical_cores") or 1
    if (steal := _median(figures, "steal")) is not None and steal > _STEAL:
        share = f"{significant(100 * steal)} %"
        yield f"The hypervisor gave {share} of the CPU to others: a dedicated host is steadier."
    if (load := _median(figures, "load")) is not None and load > _BUSY * cores:
        yield f"Load was {significant(load)} on {cores} cores: other programs ran meanwhile; stop them."
    governor = cpu.get("governor")
    if governor not in (None, "performance"):
        cure = "`sudo cpupower frequency-set -g performance` keeps the clock up"
        yield f"The CPU governor is {governor}: {cure}."


def _of_gpu(device: str, figures: Mapping[str, Any]) -> Iterator[str]:
    for reason, count in figures.get("throttled", {}).items():
        yield f"{device} held back for {reason} in {count} of {figures['readings']} readings."
    clock = figures.get("clock_mhz")
    if clock and clock["min"] < _WANDERING * clock["max"]:
        index = device.rpartition(" ")[2]
        span = f"from {significant(clock['min'])} to {significant(clock['max'])} MHz"
        cure = f"`sudo nvidia-smi -i {index} -lgc <MHz>` locks it below what heat allows, `-rgc` undoes it"
        yield f"The clock of {device} ran {span}: {cure}."
    others = figures.get("other_processes")
    if others and others["max"] > 0:
        cure = "stop them, or use another GPU"
        yield f"Up to {others['max']} other processes computed on {device}: {cure}."


def _median(figures: Mapping[str, Any], name: str) -> float | None:
    found = figures.get(name)
    return None if found is None else float(found["median"])


def explained_losses(rows: Sequence[Row]) -> Iterator[str]:
    """Yield each candidate engine that lost more than the limit, with what there is to say of it."""
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        if row.role != "candidate" or row.over_limit_pp is None or row.accuracy is None or row.engine in seen:
            continue
        seen.add(row.engine)
        name = f"{row.variant} {row.shown_precision} on {row.backend}"
        yield f"{name} {loss_words(row.accuracy, row.over_limit_pp)}. {_cause_of_loss(row, row.accuracy, rows)}"


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


def _cause_of_loss(row: Row, accuracy: AccuracyRecord, rows: Sequence[Row]) -> str:
    """Say what lost it, and the cure: the codes or the half type where FP32 keeps it, else what made the network."""
    measured = [one for one in rows if is_measured(one)]
    twin = counterpart(row, measured, precision="fp32")
    if twin is not None and twin is not row and twin.accuracy is not None and twin.over_limit_pp is None:
        kept = f"FP32 of the same network gets {twin.accuracy.correct - accuracy.correct} more right"
        return f"{_cause_of_precision(row, accuracy, twin.accuracy, kept)} {_rescue(row, measured)}".strip()
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
        return f"This machine's kernels lost it: the same graph in exact arithmetic gets {more} more right."
    return f"Quantization lost it: {kept}."


def _rescue(row: Row, measured: Sequence[Row]) -> str:
    """Name the row of the same network in which INT8 keeps the limit, else what finds the layers to keep out of it."""
    if not PRECISIONS[row.precision].is_int8:
        return ""
    found = counterpart(row, measured, precision=shown_precision("int8", rescued=True))
    if found is None or found is row or found.accuracy is None or found.over_limit_pp is not None:
        return f"{_EXPLAINS}."
    layers = f" ({'; '.join(found.notes)})" if found.notes else ""
    return f"{short_name(found)} keeps the limit, losing {fixed(found.accuracy.drop_pp)} pp{layers}."

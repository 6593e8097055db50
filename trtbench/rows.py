"""A row of a report and the records it holds: what one engine scores and takes at one batch size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping  # noqa: TC003  the report's schema is built from these annotations at run time
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from trtbench.precision import PrecisionName, shown_precision

# `built`: the engine is there, for a GPU that is not; it was not run.
Status = Literal["ok", "failed", "oom", "unsupported", "skipped", "built"]
Role = Literal["candidate", "baseline", "reference"]

AMONG_SETTINGS = ("achieved", "cores")  # fields of a row that its JSON holds among the settings too


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyRecord:
    """Counts on the whole test split, and what they prove against the reference.

    `lost` images only the reference gets right, `gained` only this engine; `drop_upper_pp` is the one-sided 95 % upper
    bound of the paired drop in percentage points, of this engine alone: a decision bounds all its candidates together;
    `true_arithmetic_correct` counts what the same Q/DQ graph gets right without the runtime's fused kernels, and
    `tensorrt_graph_correct` what the graph that TensorRT gets would: a forecast for other machines.
    `mcnemar_holm_p` is adjusted for all candidates of the batch size. `class_drops_pp` are the points each class lost
    of its own images, `worst_class` the name of the one that lost most, None where none lost. `loss` is the mean
    cross-entropy, `ece` the expected calibration error. `is_chance` says that guessing would score as well.
    """

    correct: int
    total: int
    top1: float
    top5: float | None
    ci95: tuple[float, float]
    lost: int | None = None
    gained: int | None = None
    drop_pp: float | None = None
    drop_upper_pp: float | None = None
    mcnemar_p: float | None = None
    agreement: float | None = None
    per_class: tuple[int, ...] = ()
    true_arithmetic_correct: int | None = None
    tensorrt_graph_correct: int | None = None
    mcnemar_holm_p: float | None = None
    class_totals: tuple[int, ...] = ()
    class_drops_pp: tuple[float, ...] = ()
    worst_class: str | None = None
    loss: float | None = None
    ece: float | None = None
    is_chance: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFidelity:
    """How near one output comes to the float network's, over all images.

    `snr_db` is 10 log10 of the power of the float output over that of the difference, None without any; `max_error` the
    largest absolute difference. `agreement` is the share of the images whose largest number is the same one, of an
    output (batch, numbers). Where its channels have several scales, `channels` are those of one scale ("4-7,9") that
    come least near, and `channels_snr_db` is theirs alone.
    """

    name: str
    snr_db: float | None
    max_error: float
    agreement: float | None = None
    channels: str = ""
    channels_snr_db: float | None = None

    @property
    def least_db(self) -> float:
        """Its ratio, or that of its channels where that is less; infinite without a difference."""
        return min(one for one in (self.snr_db, self.channels_snr_db, math.inf) if one is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRecord:
    """What the suite's own score says of an engine beside the float network, image by image; higher is better.

    `mean` is over the images, `drop` the float network's mean less it, in the score's units. `drop_uppers` are its
    one-sided 95 % upper bounds where 1, 2, 3, ... engines are decided on together.
    """

    mean: float
    drop: float
    drop_uppers: tuple[float, ...]

    def drop_upper(self, *, engines: int) -> float:
        """Return the bound where so many engines are decided on together; beyond those known the widest."""
        return self.drop_uppers[min(max(engines, 1), len(self.drop_uppers)) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityRecord:
    """What an engine of a network that is no classifier computes beside the float network, without labels.

    `snr_db` is that of the worst output, or of the worst channels of one scale of an output; `snr_se_db` its standard
    error over the images. Both are None where every output is the float network's, bit for bit. `score` is the suite's
    own, if it has one.
    """

    images: int
    outputs: tuple[OutputFidelity, ...]
    snr_db: float | None
    snr_se_db: float | None
    score: ScoreRecord | None = None

    @property
    def worst(self) -> str:
        """The output that `snr_db` is of, or the channels of it."""
        one = min(self.outputs, key=lambda one: one.least_db)
        if one.channels_snr_db is None or one.channels_snr_db > one.least_db:  # of all, some of which were not judged
            return one.name
        return f"{'channel' if one.channels.isdigit() else 'channels'} {one.channels} of {one.name}"

    def low_db(self, *, confidence: float) -> float:
        """Return the lower bound of the ratio at this confidence, as far as these images stand for all."""
        if self.snr_db is None or self.snr_se_db is None:
            return math.inf
        return self.snr_db - NormalDist().inv_cdf(confidence) * self.snr_se_db


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecord:
    """How the ranges of an INT8 graph were found, and how near it comes to the float one without any label.

    `mse_tensors` have mse's threshold where entropy's would have clipped too much. `images` are training images that
    calibrated nothing. `snr_db` is of the logits less their mean over the classes; None without noise. `agreement` is
    the share of images that get the same class; None of outputs that are no classes.
    """

    method: str
    snr_db: float | None
    agreement: float | None
    images: int
    mse_tensors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRecord:
    """What the raw samples of one row say; a sample is one synchronised inference of a whole batch.

    `p99_ms` is None below 1,000 samples. `ratio` is the paired ratio to the anchor engine with its 95 % interval.
    `clock` says what took the times. In mode "throughput" a sample holds `launches_per_sample` inferences, and the
    figures are of one of them. `p50_by_process_ms` are the medians of each process, `p50_ms` their geometric mean and
    `p50_ci95_ms` its interval, which rests on how they differ; the other percentiles are of all samples. `verdict` is
    "narrow" where the interval lies within 5 % of the median, else "wide". `parts_ms` are medians of
    host-to-device, enqueue, compute and device-to-host, where the runtime tells them apart; `is_enqueue_bound` where
    launching takes over 0.8 of the computing. `throttled_samples` were taken while the device was throttled; None where
    nobody looked.
    """

    scope: Literal["host-to-host", "device", "end-to-end"]
    p50_ms: float
    p90_ms: float
    p99_ms: float | None
    mean_ms: float
    cov: float
    ms_per_image: float
    n: int
    verdict: str
    ratio: float | None = None
    ratio_ci95: tuple[float, float] | None = None
    anchor: str | None = None
    mode: Literal["latency", "throughput"] = "latency"
    clock: Literal["wall", "cuda-events"] = "wall"
    launches_per_sample: int = 1
    p95_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    p50_ci95_ms: tuple[float, float] | None = None
    p50_by_process_ms: tuple[float, ...] = ()
    warm_up_ms: float | None = None
    warm_up_inferences: int | None = None
    parts_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    is_enqueue_bound: bool | None = None
    throttled_samples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """How an engine bears a load.

    Under `scenario` "streams", `streams` requests are in flight; under "arrivals" they come at `rate` a second, and
    `streams` are served at once. A request is one inference of a batch. Under "arrivals" its latency runs from the
    moment it was due, so that a queue counts in full. `holds` says whether p99 keeps `p99_limit_ms` and the rate was
    kept up; None without a limit. `throughput_ips` counts images.
    """

    scenario: Literal["streams", "arrivals"]
    streams: int
    rate: float | None
    throughput_ips: float
    p50_ms: float
    p90_ms: float
    p99_ms: float | None
    max_ms: float
    n: int
    p99_limit_ms: float | None = None
    holds: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One (variant, precision, sparse, build, backend, device, batch size) of a report.

    `sparse` says that 2:4 sparse weights may run on sparse tensor cores; `rescued` that INT8 was corrected, or has some
    layers in higher precision, so that it loses less; `build` counts repeated builds from 1.
    `widths` are the output channels of each convolution. `latency` is of the inference alone; `other_latencies` are
    of the same engine with the copies in and out, or of several launches a sample. `device_memory_bytes` are what it
    takes of a GPU, None on a CPU and where nobody tells; `host_memory_bytes` the most its process held. `energy_j` is
    of one image.
    `builds_p50_ms` are the medians of repeated builds, of which the row is the middle one. `achieved` is what its
    layers came to compute in, `settings` what the engine was opened with, `cores` those its process was bound to.
    `engine_path` is the engine's file as the run named it, from the folder it ran in. `over_limit_pp` are the points
    that its drop is beyond the decision's limit; None where it is within. Of images without labels there is `fidelity`
    in place of `accuracy`. `together` is how many engines the decision compares: what bounds the row is shown as it
    holds together with theirs.
    """

    variant: str
    precision: PrecisionName
    sparse: bool = False
    rescued: bool = False
    build: int = 1
    backend: str
    device: str
    batch_size: int
    role: Role = "candidate"
    status: Status = "ok"
    reason: str = ""
    simulated: bool = False
    params: int | None = None
    macs: int | None = None
    widths: tuple[int, ...] = ()
    sparsity: float | None = None
    engine_bytes: int | None = None
    weight_bytes: int | None = None
    engine_sha256: str | None = None
    engine_path: str | None = None
    build_s: float | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    calibration: CalibrationRecord | None = None
    accuracy: AccuracyRecord | None = None
    fidelity: FidelityRecord | None = None
    over_limit_pp: float | None = None
    together: int = 1
    latency: LatencyRecord | None = None
    other_latencies: tuple[LatencyRecord, ...] = ()
    loads: tuple[LoadRecord, ...] = ()
    throughput_ips: float | None = None
    device_memory_bytes: int | None = None
    host_memory_bytes: int | None = None
    energy_j: float | None = None
    builds_p50_ms: tuple[float, ...] = ()
    achieved: str | None = None
    cores: tuple[int, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def shown_precision(self) -> str:
        """The precision as names and tables show it, with what else tells two engines of it apart."""
        return shown_precision(self.precision, sparse=self.sparse, rescued=self.rescued, build=self.build)

    @property
    def engine(self) -> tuple[str, str, str]:
        """What tells engines of a report apart on one device."""
        return (self.variant, self.shown_precision, self.backend)

    @property
    def name(self) -> str:
        """The row's name as people say it."""
        return f"{self.variant} {self.shown_precision} {self.backend} b{self.batch_size}"

    def as_json(self) -> dict[str, Any]:
        """Return the fields; what readers look for among the settings stands there too."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        among = {name: fields[name] for name in AMONG_SETTINGS if fields[name]}
        return fields | {"settings": {**self.settings, **among}}

"""What is measured, and by what the recommendation is chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from trtbench.precision import FloatPrecision  # noqa: TC001  pydantic resolves the fields at run time
from trtbench.suite.base import Batch, Few, Milliseconds, Part, PositiveFraction, Seconds, unique
from trtbench.suite.engines import Baseline  # noqa: TC001  pydantic resolves the fields at run time

Objective = Literal["p50_ms", "p99_ms", "ms_per_image", "throughput", "engine_bytes"]
Scope = Literal["device", "host-to-host", "end-to-end"]
_Megabytes = Annotated[float, Field(gt=0, le=10**7)]  # 10 TB


class LoadConfig(Part):
    """One load to put on every engine: requests in flight, or requests that arrive at a rate."""

    scenario: Literal["streams", "arrivals"] = Field("streams", description="what sends the requests")
    streams: Few = Field(1, description="requests in flight at most; 1 under streams is the single stream")
    rate: Annotated[float, Field(gt=0, le=10**6)] | None = Field(
        None, description="arrivals: requests a second; without it the highest that keeps p99_ms is searched"
    )
    p99_ms: Milliseconds | None = Field(None, description="the limit of the p99 of a request")
    duration: Seconds = Field(3.0, description="seconds of each try")

    @model_validator(mode="after")
    def _arrivals_have_a_rate_or_a_limit(self) -> LoadConfig:
        if self.scenario == "arrivals" and self.rate is None and self.p99_ms is None:
            raise ValueError("rate, or p99_ms to search it by")
        if self.scenario == "streams" and self.rate is not None:
            raise ValueError("no rate: streams send as fast as they are served")
        return self


class BenchConfig(Part):
    """How latency is measured; names follow trtexec."""

    batch_sizes: Annotated[tuple[Batch, ...], Field(min_length=1, max_length=100), AfterValidator(unique)] = Field(
        (1, 32), description="images of a request; each is a row"
    )
    warm_up: Annotated[float, Field(ge=0, le=3_600_000)] = Field(
        200, description="milliseconds, and at least 3 inferences"
    )
    duration: Seconds = Field(3.0, description="seconds a row is timed, at least, over all its processes")
    iterations: Annotated[int, Field(ge=30, le=10**6)] = Field(30, description="samples a row keeps, at least")
    processes: Annotated[int, Field(gt=0, le=100)] = Field(
        3, description="fresh processes of each engine; they share duration and iterations"
    )
    budget_s: Seconds | None = Field(
        None,
        description="seconds of timing in all: what the plan leaves of it goes to more processes where the choice is"
        " open; without it half of what the plan took",
    )
    noise: PositiveFraction | None = Field(
        None, description="go on until the 95 % interval of the median is within this share of it; 0.005 is strict"
    )
    ceiling: Seconds = Field(15.0, description="seconds after which a row that is still noisy stops")
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1), AfterValidator(unique)] = Field(
        ("device",),
        description="device: the inference alone, always timed; host-to-host: with the copies in and out;"
        " end-to-end: from the bytes of image files to logits",
    )
    load: tuple[LoadConfig, ...] = Field((), max_length=100, description="load scenarios, after the timing")
    throughput: bool = Field(default=False, description="time samples of several launches too, each at least 1 ms")
    alive: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        None, description="engines held in memory at once; more are timed in groups that share the first engine"
    )
    block_ms: Milliseconds = Field(50.0, description="length of one interleaved block")
    threads: Annotated[int, Field(gt=0, le=512)] = Field(  # the cores of the largest machines
        1, description="intra-op threads of CPU engines"
    )
    spin: bool = Field(default=False, description="let CPU threads spin between operators")
    baselines: tuple[Baseline, ...] = Field(("eager",), description="PyTorch's rows beside each variant's engines")
    baseline_precisions: Annotated[tuple[FloatPrecision, ...], AfterValidator(unique)] = Field(
        ("fp32",), description="of PyTorch's rows; fp16 and bf16 run in channels_last"
    )
    cuda_graph: bool = Field(default=True, description="TensorRT: launch by a CUDA graph")


class DecisionConfig(Part):
    """The constraints and the objective of the recommendation."""

    max_drop_pp: Annotated[float, Field(ge=0, le=100)] = Field(
        1.0, description="largest accepted drop in top-1, proven"
    )
    objective: Objective = Field("p50_ms", description="what is best among the rows within the limits")
    margin: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="a smaller file wins that is proven to take at most this share longer than the fastest"
    )
    batch_size: Batch = Field(1, description="the batch size that decides")
    max_engine_mb: _Megabytes | None = Field(None, description="MB = 10^6 bytes")
    max_p99_ms: Milliseconds | None = Field(None, description="largest accepted p99; needs 1,000 samples a row")
    max_memory_mb: _Megabytes | None = Field(
        None, description="memory where it computes: of the GPU, else of its process; MB = 10^6 bytes"
    )
    min_fidelity_db: Annotated[float, Field(ge=-(10**3), le=10**3)] = Field(
        30.0,
        description="of images without labels: least accepted signal-to-noise ratio of the worst output, proven, the"
        " float network's being the signal",
    )
    max_score_drop: Annotated[float, Field(ge=0, le=10**9)] = Field(
        0.01,
        description="of a suite with a score, in place of min_fidelity_db: largest accepted drop of its mean, proven",
    )
    min_throughput: Annotated[float, Field(gt=0, le=10**9)] | None = Field(
        None, description="least accepted images a second"
    )

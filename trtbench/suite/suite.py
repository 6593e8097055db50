"""The whole suite: one question, its parts at their defaults; no defaults live anywhere else."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from trtbench.precision import PRECISIONS, FloatPrecision
from trtbench.suite.base import Batch, Few, Milliseconds, Name, Part, PositiveFraction, Seconds, unique, validated
from trtbench.suite.engines import Baseline, CalibrationConfig, EngineConfig, ExportConfig
from trtbench.suite.inputs import DataConfig, ModelConfig, TrainConfig
from trtbench.suite.variants import Variant  # noqa: TC001  pydantic resolves the fields at run time

if TYPE_CHECKING:
    from collections.abc import Mapping


Objective = Literal["p50_ms", "p99_ms", "ms_per_image", "throughput", "engine_bytes"]
Scope = Literal["device", "host-to-host", "end-to-end"]
_Megabytes = Annotated[float, Field(gt=0, le=10**7)]  # 10 TB
_FINE_TUNE = TrainConfig(epochs=10, lr=0.01)
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SCHEMA_ID = "https://trtbench.github.io/trtbench/suite.schema.json"


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
        description="of images without labels: least accepted signal-to-noise ratio of the worst output, or of the"
        " worst channels of one scale, proven, the float network's being the signal",
    )
    max_score_drop: Annotated[float, Field(ge=0, le=10**9)] = Field(
        0.01,
        description="of a suite with a score, in place of min_fidelity_db: largest accepted drop of its mean, proven",
    )
    min_throughput: Annotated[float, Field(gt=0, le=10**9)] | None = Field(
        None, description="least accepted images a second"
    )


class Suite(Part):
    """One question: these variants of this network, on these images, on this machine."""

    name: Name = Field(description="of the suite and of its folder of engines")
    device: str | None = Field(
        None,
        description="the GPU, as cuda:N in the order of nvidia-smi or by its UUID; the first that is visible if null",
    )
    devices: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(unique)] | None = Field(
        None,
        description="with --on ray: kinds of node to build and time on, by Ray's accelerator type (A10G, L4), by a "
        "custom resource, or cpu; every accelerator there is, else cpu, if null",
    )
    data: DataConfig = Field(DataConfig(), description="the images: training, validation and test")
    model: ModelConfig = Field(description="the network, and where its weights come from")
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=1000)] = Field(
        description="what is made of the network"
    )
    fine_tune: TrainConfig = Field(_FINE_TUNE, description="one training budget for every variant that is fine-tuned")
    export: ExportConfig = Field(ExportConfig(), description="how networks become ONNX graphs")
    calibration: CalibrationConfig = Field(CalibrationConfig(), description="how INT8 and FP8 get their scales")
    engines: Annotated[tuple[EngineConfig, ...], Field(min_length=1, max_length=100)] = Field(
        (EngineConfig(),), description="runtimes, each with the precisions it builds of every variant"
    )
    bench: BenchConfig = Field(BenchConfig(), description="what is timed, for how long, beside which baselines")
    score: Annotated[str, Field(pattern=r"[\w.]+:\w+")] | None = Field(
        None,
        description="package.module:callable of images:PATH or npz:PATH; told each output and the images, it returns a"
        " number for each image, higher is better",
    )
    decision: DecisionConfig = Field(DecisionConfig(), description="the limits, and what is best within them")
    _written: dict[tuple[str, str], str] = PrivateAttr(default_factory=dict)
    _origin: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Suite:
        names = [variant.name for variant in self.variants]
        folded = [name.casefold() for name in names]  # as macOS and Windows compare files, which bear these names
        if twice := sorted({name for name in names if folded.count(name.casefold()) > 1}):
            raise ValueError(f"unique variant names, but {', '.join(twice)} stands twice")
        sizes = self.bench.batch_sizes
        for engine in self.engines:
            if engine.profile is not None and not engine.profile[0] <= min(sizes) <= max(sizes) <= engine.profile[2]:
                raise ValueError(f"a profile that holds the batch sizes {list(sizes)}, not {list(engine.profile)}")
        for index, variant in enumerate(self.variants):
            if variant.after is not None and variant.after not in names[:index]:
                raise ValueError(f"{variant.name}: `after` a variant named before it, but {variant.after!r} is none")
        if self.data.source.startswith("npz:") and "end-to-end" in self.bench.scopes:
            raise ValueError("bench.scopes without end-to-end, which begins with the bytes of pictures: npz has none")
        if self.score is not None and self.data.is_labelled:
            raise ValueError(
                f"score with images:PATH or npz:PATH: images with labels, of {self.data.source}, have top-1"
            )
        if self.decision.batch_size not in self.bench.batch_sizes:
            raise ValueError(
                f"decision.batch_size {self.decision.batch_size} among bench.batch_sizes {list(self.bench.batch_sizes)}"
            )
        return self

    @model_validator(mode="after")
    def _padding_is_reflected(self) -> Suite:
        size = self.data.size
        for budget in (self.model.train, self.fine_tune, *(one.budget for one in self.variants)):
            if budget is None or not budget.epochs or "crop_padding" not in budget.augment.model_fields_set or not size:
                continue
            if (padding := budget.augment.crop_padding) >= (size if isinstance(size, int) else min(size)):
                raise ValueError(f"augment.crop_padding below data.size {size}, not {padding}")
        return self

    @model_validator(mode="after")
    def _the_budget_is_of_the_kind(self) -> Suite:
        """Fill what is not said of the budget from that of the kind, if all that is trained is of one, else from ours.

        A `TrainConfig` alone has the learning rate of fresh weights.
        """
        trained = {one.usual_budget for one in self.variants if one.fine_tune or one.kind == "qat"}
        usual = (trained.pop() if len(trained) == 1 else None) or _FINE_TUNE
        said = self.fine_tune if "fine_tune" in self.model_fields_set else TrainConfig()
        unsaid = {key: getattr(usual, key) for key in usual.model_fields_set - said.model_fields_set}
        shared = said.model_copy(update=unsaid)
        variants = tuple(_with_rest_of(one, shared) for one in self.variants)
        return self.model_copy(update={"fine_tune": shared, "variants": variants})

    @model_validator(mode="after")
    def _no_digit_is_mirrored(self) -> Suite:
        """Let `flip` be off for digits where the suite does not say: a mirrored 2 is none."""
        if self.data.source != "digits":
            return self
        model = self.model.model_copy(update={"train": self.model.train and _unmirrored(self.model.train)})
        variants = tuple(
            one.model_copy(update={"budget": one.budget and _unmirrored(one.budget)}) for one in self.variants
        )
        return self.model_copy(update={"model": model, "fine_tune": _unmirrored(self.fine_tune), "variants": variants})

    def as_written(self) -> dict[str, Any]:
        """Return the whole suite as JSON values, its paths as the file has them: no machine's own folders."""
        found = self.model_dump(mode="json")
        for (section, key), value in self._written.items():
            found[section][key] = value
        return found

    @property
    def origin(self) -> str:
        """What `trtbench build` takes to build this suite again: its file, its name, or the options of one model."""
        return self._origin or self.name

    def lineage(self, variant: Variant) -> tuple[Variant, ...]:
        """Return the variants that a variant's network goes through, from the dense network on, itself last."""
        if variant.after is None:
            return (variant,)
        start = next(one for one in self.variants if one.name == variant.after)
        return (*self.lineage(start), variant)

    def budget_of(self, variant: Variant) -> TrainConfig:
        """Return what a variant that is trained is trained by: its own budget, or the one of all."""
        return variant.budget or self.fine_tune

    @property
    def code(self) -> tuple[str, ...]:
        """What of the suite is code that runs: the network, where it is a callable, and the score."""
        return tuple(one for one in (self.model.code, self.score) if one)

    @property
    def builds_int8(self) -> bool:
        """Whether any engine is INT8, or FP8 with its equal steps; a runtime's usual precisions hold it."""
        return any(
            engine.precisions is None or any(PRECISIONS[name].codes for name in engine.precisions)
            for engine in self.engines
        )


def _with_rest_of(variant: Variant, shared: TrainConfig) -> Variant:
    """Let a variant's own budget say what it does not say as the shared one does."""
    if variant.budget is None:
        return variant
    said = {key: getattr(variant.budget, key) for key in variant.budget.model_fields_set}
    return variant.model_copy(update={"budget": shared.model_copy(update=said)})


def _unmirrored(budget: TrainConfig) -> TrainConfig:
    if "flip" in budget.augment.model_fields_set:
        return budget
    return budget.model_copy(update={"augment": budget.augment.model_copy(update={"flip": False})})


def adhoc_suite(*, model: Mapping[str, Any], origin: str = "", **sections: Part | Mapping[str, Any]) -> Suite:
    """Return the suite that a single step on one model amounts to: one dense variant, one runtime, no row of PyTorch.

    Args:
        model: `name` and `checkpoint`, or `train`, as in a suite.
        origin: the options of a command line that say the same, for `Suite.origin`.
        sections: other parts by their key, as parts or as a suite's file has them; `variants` and `engines` are one.

    Raises:
        ConfigError: an option cannot be.
    """
    given: dict[str, Any] = {key: one.model_dump() if isinstance(one, Part) else one for key, one in sections.items()}
    checkpoint = model.get("checkpoint")
    weights = (
        "" if checkpoint is None else f"-{hashlib.sha256(str(Path(checkpoint).absolute()).encode()).hexdigest()[:8]}"
    )
    variant = given.get("variants", {})
    raw = {
        **given,
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", str(model["name"])).strip("-._")[:60].rstrip("-.") + weights,
        "model": model,
        "variants": [{"kind": "dense", "name": variant.get("kind", "dense"), **variant}],
        "engines": [given.get("engines", {})],
        "bench": {"baselines": [], **given.get("bench", {})},
    }
    suite = validated(Suite, raw, origin="command line")
    suite._origin = origin or f"--model {model['name']}"  # noqa: SLF001  its own class
    return suite


def suite_schema() -> dict[str, Any]:
    """Return the JSON Schema of suite files; a `kind` says what its variant is."""
    schema = Suite.model_json_schema()
    for part in schema["$defs"].values():
        if "kind" in part["properties"]:
            part["properties"]["kind"]["description"] = part["description"].partition("\n")[0]
    return {"$schema": _DRAFT, "$id": _SCHEMA_ID, **schema}

"""The parts of a suite: frozen models that refuse what cannot be; no defaults live anywhere else."""

from __future__ import annotations

import difflib
import re
from pathlib import Path  # noqa: TC003  pydantic resolves the fields at run time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator

from trtbench.suite.base import Name, Part, PositiveFloat, PositiveFraction, PositiveInt, unique
from trtbench.suite.engines import Baseline, CalibrationConfig, EngineConfig, ExportConfig
from trtbench.suite.training import TrainConfig
from trtbench.suite.variants import Variant  # noqa: TC001  likewise

Objective = Literal["p50_ms", "p99_ms", "ms_per_image", "throughput", "engine_bytes"]
Scope = Literal["device", "host-to-host"]


# The networks of the zoo, by name; a test holds it equal to models.model_names(), which needs torch.
ZOO = (
    "mobilenet_v2",
    "mobilenet_v2_cifar",
    "resnet18",
    "resnet18_3x3",
    "resnet18_imagenet",
    "resnet20",
    "resnet20_a",
    "resnet32",
    "resnet32_a",
    "resnet44",
    "resnet44_a",
    "resnet56",
    "resnet56_a",
)


_CHANNELS = 3
_SOURCE = re.compile(r"digits|cifar100?(:.+)?|folder:.+")


class DataConfig(Part):
    """Where the images come from, and how the training set is split."""

    source: str = Field(
        "digits", description="digits | cifar10[:ROOT] | cifar100[:ROOT] | folder:PATH (a folder or an archive)"
    )
    size: PositiveInt = Field(32, description="height and width the network sees, in pixels")
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="share of the training images, stratified")
    mean: tuple[float, ...] | None = Field(None, description="per-channel mean in [0, 1]; the source's own by default")
    std: tuple[float, ...] | None = Field(None, description="per-channel deviation; the source's own by default")
    download: bool = Field(default=False, description="let torchvision download CIFAR where it is missing")
    seed: int = Field(0, description="seed of the train/validation split")

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, source: str) -> str:
        if not _SOURCE.fullmatch(source):
            raise ValueError("digits, cifar10[:ROOT], cifar100[:ROOT] or folder:PATH")
        return source

    @model_validator(mode="after")
    def _mean_and_std_belong_together(self) -> DataConfig:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std together or neither")
        if self.mean is not None and self.std is not None and {len(self.mean), len(self.std)} != {_CHANNELS}:
            raise ValueError(f"{_CHANNELS} numbers in mean and in std, one per colour channel")
        if self.std is not None and min(self.std, default=0.0) <= 0:
            raise ValueError("every std greater than 0")
        return self


class ModelConfig(Part):
    """The dense network: an architecture and where its weights come from."""

    name: str = Field(
        "resnet20", description="resnet20 | torchvision:NAME | timm:NAME | package.module:callable | onnx:PATH"
    )
    checkpoint: Path | None = Field(None, description="trained weights; without them `train` runs first")
    train: TrainConfig | None = Field(None, description="the budget of training from scratch")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if ":" in name or name in ZOO:
            return name
        nearest = difflib.get_close_matches(name, ZOO, n=3) or ZOO
        raise ValueError(f"{', '.join(nearest)}, torchvision:NAME, timm:NAME, package.module:callable or onnx:PATH")

    @model_validator(mode="after")
    def _weights_come_from_somewhere(self) -> ModelConfig:
        if self.checkpoint is not None and self.train is not None:
            raise ValueError("a checkpoint or a training budget, not both")
        if self.checkpoint is None and self.train is None and not self.name.startswith("onnx:"):
            raise ValueError("a checkpoint or a training budget: untrained weights answer nothing")
        return self


class LoadConfig(Part):
    """One load to put on every engine: requests in flight, or requests that arrive at a rate."""

    scenario: Literal["streams", "arrivals"] = Field("streams", description="what sends the requests")
    streams: PositiveInt = Field(1, description="requests in flight at most; 1 under streams is the single stream")
    rate: PositiveFloat | None = Field(
        None, description="arrivals: requests a second; without it the highest that keeps p99_ms is searched"
    )
    p99_ms: PositiveFloat | None = Field(None, description="the limit of the p99 of a request")
    duration: PositiveFloat = Field(3.0, description="seconds of each try")

    @model_validator(mode="after")
    def _arrivals_have_a_rate_or_a_limit(self) -> LoadConfig:
        if self.scenario == "arrivals" and self.rate is None and self.p99_ms is None:
            raise ValueError("rate, or p99_ms to search it by")
        if self.scenario == "streams" and self.rate is not None:
            raise ValueError("no rate: streams send as fast as they are served")
        return self


class BenchConfig(Part):
    """How latency is measured; names follow trtexec."""

    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(unique)] = Field(
        (1, 32), description="images of a request; each is a row"
    )
    warm_up: Annotated[float, Field(ge=0)] = Field(200, description="milliseconds, and at least 3 inferences")
    duration: PositiveFloat = Field(3.0, description="seconds a row is timed, at least, over all its processes")
    iterations: Annotated[int, Field(ge=30)] = Field(30, description="samples a row keeps, at least")
    processes: PositiveInt = Field(3, description="fresh processes of each engine; they share duration and iterations")
    noise: PositiveFraction | None = Field(
        None, description="go on until the 95 % interval of the median is within this share of it; 0.005 is strict"
    )
    ceiling: PositiveFloat = Field(15.0, description="seconds after which a row that is still noisy stops")
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1), AfterValidator(unique)] = Field(
        ("device",), description="device: the inference alone, always timed; host-to-host: with the copies in and out"
    )
    load: tuple[LoadConfig, ...] = Field((), description="load scenarios, after the timing")
    throughput: bool = Field(default=False, description="time samples of several launches too, each at least 1 ms")
    alive: Annotated[int, Field(ge=2)] | None = Field(
        None, description="engines held in memory at once; more are timed in groups that share the first engine"
    )
    block_ms: PositiveFloat = Field(50.0, description="length of one interleaved block")
    threads: PositiveInt = Field(1, description="intra-op threads of CPU engines")
    spin: bool = Field(default=False, description="let CPU threads spin between operators")
    baselines: tuple[Baseline, ...] = Field(("eager",), description="PyTorch's rows beside each variant's engines")
    baseline_precisions: Annotated[tuple[Literal["fp32", "tf32", "fp16", "bf16"], ...], AfterValidator(unique)] = Field(
        ("fp32",), description="of PyTorch's rows; fp16 and bf16 run in channels_last"
    )
    cuda_graph: bool = Field(default=True, description="TensorRT: launch by a CUDA graph")
    ort_placement: bool = Field(default=True, description="time once the Q/DQ placement that ONNX Runtime's CPU fuses")


class DecisionConfig(Part):
    """The constraints and the objective of the recommendation."""

    max_drop_pp: Annotated[float, Field(ge=0)] = Field(1.0, description="largest accepted drop in top-1, proven")
    objective: Objective = Field("p50_ms", description="what is best among the rows within the limits")
    batch_size: PositiveInt = Field(1, description="the batch size that decides")
    max_engine_mb: PositiveFloat | None = Field(None, description="MB = 10^6 bytes")
    max_p99_ms: PositiveFloat | None = Field(None, description="largest accepted p99; needs 1,000 samples a row")
    max_memory_mb: PositiveFloat | None = Field(
        None, description="peak memory of the engine's process; MB = 10^6 bytes"
    )
    min_throughput: PositiveFloat | None = Field(None, description="least accepted images a second")


class Suite(Part):
    """One question: these variants of this network, on these images, on this machine."""

    name: Name
    data: DataConfig = DataConfig()
    model: ModelConfig
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    fine_tune: TrainConfig = TrainConfig(epochs=10, lr=0.01)
    export: ExportConfig = ExportConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    engines: Annotated[tuple[EngineConfig, ...], Field(min_length=1)] = (EngineConfig(),)
    bench: BenchConfig = BenchConfig()
    decision: DecisionConfig = DecisionConfig()
    _written: dict[tuple[str, str], str] = PrivateAttr(default_factory=dict)
    _origin: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Suite:
        names = [variant.name for variant in self.variants]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"unique variant names, but {', '.join(twice)} stands twice")
        sizes = self.bench.batch_sizes
        for engine in self.engines:
            if engine.profile is not None and not engine.profile[0] <= min(sizes) <= max(sizes) <= engine.profile[2]:
                raise ValueError(f"a profile that holds the batch sizes {list(sizes)}, not {list(engine.profile)}")
        for index, variant in enumerate(self.variants):
            if variant.after is not None and variant.after not in names[:index]:
                raise ValueError(f"{variant.name}: `after` a variant named before it, but {variant.after!r} is none")
        if self.decision.batch_size not in self.bench.batch_sizes:
            raise ValueError(
                f"decision.batch_size {self.decision.batch_size} among bench.batch_sizes {list(self.bench.batch_sizes)}"
            )
        return self

    def as_written(self) -> dict[str, Any]:
        """Return the whole suite as JSON values, its paths as the file has them: no machine's own folders."""
        found = self.model_dump(mode="json")
        for (section, key), value in self._written.items():
            found[section][key] = value
        return found

    @property
    def origin(self) -> str:
        """What `trtbench build` takes to build this suite again: its file, or the name of a shipped one."""
        return self._origin or self.name

    def lineage(self, variant: Variant) -> tuple[Variant, ...]:
        """Return the variants that a variant's network goes through, from the dense network on, itself last."""
        if variant.after is None:
            return (variant,)
        start = next(one for one in self.variants if one.name == variant.after)
        return (*self.lineage(start), variant)

    @property
    def builds_int8(self) -> bool:
        """Whether any engine of the suite is INT8; a runtime's usual precisions hold it."""
        return any(
            engine.precisions is None or any(precision.startswith("int8") for precision in engine.precisions)
            for engine in self.engines
        )

"""Which runtimes there are, and what a suite asks of export, calibration and builds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  pydantic resolves the fields at run time
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from trtbench.environment.verdicts import RtxTarget  # noqa: TC001  likewise
from trtbench.precision import PrecisionName, Runtime  # noqa: TC001  likewise
from trtbench.suite.base import Batch, Count, Part, Seed, unique

Method = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
AskedMethod = Literal["auto", "minmax", "moving-average", "percentile", "entropy", "mse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendEntry:
    """What is known of a runtime without importing it.

    Args:
        place: where its object stands, as `module:NAME`; what that has is `engines.base.Backend`.
        placement: whose kernels the Q/DQ pairs of its int8 graphs are placed for: int8 means what the runtime computes.
        settings: keys of `bench` that its sessions take, beside `threads` and `spin`.
        any_outputs: its sessions take any inputs and give back any outputs of a network, not one picture and one output
            (batch, numbers) alone.
        ships: the module of `shipping.templates` that runs its engines in a bundle; "" where none does.
    """

    place: str
    is_baseline: bool = False
    placement: Runtime = "tensorrt"
    packages: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    any_outputs: bool = False
    ships: str = ""


_ORT, _TORCH = "trtbench.engines.onnxruntime", "trtbench.engines.pytorch"
# The one list of runtimes: a new one is its module and a line here.
BACKENDS: dict[str, BackendEntry] = {
    "tensorrt": BackendEntry(
        place="trtbench.engines.tensorrt.backend:TENSORRT",
        packages=("tensorrt",),
        settings=("cuda_graph",),
        ships="tensorrt",
    ),
    "tensorrt-rtx": BackendEntry(
        place="trtbench.engines.tensorrt_rtx.backend:TENSORRT_RTX",
        packages=("tensorrt_rtx_bindings",),
        settings=("cuda_graph",),
    ),
    "onnxruntime-tensorrt": BackendEntry(
        place=f"{_ORT}.tensorrt_provider:ONNXRUNTIME_TENSORRT",
        packages=("onnxruntime", "tensorrt"),
        ships="onnxruntime",
    ),
    "onnxruntime-cuda": BackendEntry(
        place=f"{_ORT}.cuda:ONNXRUNTIME_CUDA", packages=("onnxruntime",), ships="onnxruntime"
    ),
    "onnxruntime-cpu": BackendEntry(
        place=f"{_ORT}.cpu:ONNXRUNTIME_CPU",
        placement="onnxruntime-cpu",
        packages=("onnxruntime",),
        any_outputs=True,
        ships="onnxruntime",
    ),
    "eager": BackendEntry(place=f"{_TORCH}:EAGER", is_baseline=True, packages=("torch",)),
    "eager-cudagraph": BackendEntry(place=f"{_TORCH}:CUDAGRAPH", is_baseline=True, packages=("torch",)),
    "compile": BackendEntry(place=f"{_TORCH}:COMPILE", is_baseline=True, packages=("torch",)),
    "fake": BackendEntry(place="trtbench.engines.fake:FAKE"),
}


def _names(*, is_baseline: bool) -> list[str]:
    return [name for name, entry in BACKENDS.items() if entry.is_baseline == is_baseline]


def _one_of(name: str, known: list[str]) -> str:
    if name not in known:
        raise ValueError(" or ".join(known))
    return name


def _is_engine(name: str) -> str:
    return _one_of(name, ["auto", *_names(is_baseline=False)])


def _is_baseline(name: str) -> str:
    return _one_of(name, _names(is_baseline=True))


BackendName = Annotated[
    str, AfterValidator(_is_engine), Field(json_schema_extra={"enum": ["auto", *_names(is_baseline=False)]})
]
Baseline = Annotated[str, AfterValidator(_is_baseline), Field(json_schema_extra={"enum": [*_names(is_baseline=True)]})]


class ExportConfig(Part):
    """PyTorch to ONNX."""

    exporter: Literal["dynamo", "torchscript"] = Field("dynamo", description="of PyTorch's two; torchscript is faster")
    opset: Annotated[int, Field(ge=13, le=24)] = Field(20, description="ONNX operator set")


class CalibrationConfig(Part):
    """Which training images calibrate INT8, and how their ranges become scales."""

    per_class: Count | None = Field(None, description="images of each class")
    total: Count | None = Field(None, description="images in all, spread evenly over the classes")
    method: AskedMethod = Field(
        "auto", description="how activations become scales; auto judges the methods on held-out training images"
    )
    percentile: Annotated[float, Field(gt=50, le=100)] = Field(
        99.99, description="method percentile: how many of the magnitudes stay below the threshold"
    )
    weights: Literal["absmax", "mse"] = Field("absmax", description="clip of each output channel of a weight")
    equalise: bool = Field(default=False, description="cross-layer equalisation, for depthwise networks")
    rounding: Literal["nearest", "gptq"] = Field("nearest", description="gptq: weights by layer reconstruction")
    bias_correction: bool = Field(default=False, description="take the mean shift of each channel off its bias")
    exclude: Annotated[tuple[str, ...], Field(max_length=10_000), AfterValidator(unique)] = Field(
        (), description="names of ONNX nodes kept in higher precision; `trtbench explain-int8` finds them"
    )
    rescue: bool = Field(
        default=True,
        description="where INT8 may lose too much, offer a row that holds: corrected, or with layers in fp32",
    )
    allow_short: bool = Field(default=False, description="take classes that have too few images short")
    batch_size: Batch = Field(8, description="small: the activations of a batch stay in the processor's cache")
    seed: Seed = Field(0, description="seed of the sample")
    manifest: Path | None = Field(None, description="a committed manifest to use instead of sampling")

    @model_validator(mode="after")
    def _one_size(self) -> CalibrationConfig:
        if self.per_class is not None and self.total is not None:
            raise ValueError("per_class or total, not both")
        return self


class EngineConfig(Part):
    """One runtime and the precisions it builds; `auto` is the best here: TensorRT, else ONNX Runtime's CPU."""

    backend: BackendName = Field("auto", description="the runtime")
    precisions: Annotated[tuple[PrecisionName, ...], Field(min_length=1), AfterValidator(unique)] | None = Field(
        None, description="what is built; by default what the runtime is usually asked for"
    )
    sparse: bool = Field(default=False, description="TensorRT: let 2:4 sparse weights use sparse tensor cores")
    builds: Annotated[int, Field(gt=0, le=100)] = Field(
        1,
        description="TensorRT: builds of each finalist: ranked by their spread, the median one is shipped",
    )
    workspace_mib: Count | None = Field(None, description="TensorRT: scratch memory of tactics; all by default")
    optimization_level: Annotated[int, Field(ge=0, le=5)] = Field(3, description="TensorRT: of the builder")
    profile: tuple[Batch, Batch, Batch] | None = Field(
        None, description="TensorRT: one dynamic profile (smallest, usual, largest batch); fixed ones by default"
    )
    calibrator: Literal["entropy", "minmax"] = Field("entropy", description="TensorRT 10: of int8-implicit")
    timing_cache: bool = Field(default=True, description="TensorRT: keep the timings of tactics between builds")
    hardware_compatible: bool = Field(default=False, description="TensorRT: run on every GPU from Ampere on")
    version_compatible: bool = Field(default=False, description="TensorRT: load in later versions too")
    targets: Annotated[tuple[RtxTarget, ...], Field(min_length=1), AfterValidator(unique)] | None = Field(
        None, description="TensorRT for RTX: GPUs of one engine, which need not be here; sm80 to sm121 by default"
    )
    half: Literal["trtbench", "modelopt"] = Field("trtbench", description="who converts the graph to fp16 or bf16")

    @model_validator(mode="after")
    def _profile_is_in_order(self) -> EngineConfig:
        if self.profile is not None and list(self.profile) != sorted(self.profile):
            raise ValueError("a profile of smallest, usual and largest batch, in this order")
        return self

    @model_validator(mode="after")
    def _targets_are_of_rtx(self) -> EngineConfig:
        if self.targets is not None and self.backend != "tensorrt-rtx":
            raise ValueError("targets with backend tensorrt-rtx; the others build for the GPU that is here")
        return self

"""The plan: which engines a suite asks for, and what each is built from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from trtbench.engines.base import BuildOptions, backend, resolve_backend
from trtbench.suite import BACKENDS, EngineConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trtbench.pipeline.artefacts import Artefacts
    from trtbench.rows import Role
    from trtbench.store import Artefact
    from trtbench.suite import Suite, Variant

_HALF = ("fp16", "bf16", "int8+fp16")
_QUANTIZED = ("int8", "int8-ort")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """One engine to build: a variant at a precision on a runtime, as `config` asks; `build` counts repeated builds."""

    variant: Variant
    precision: str
    backend: str
    role: Role = "candidate"
    config: EngineConfig = field(default_factory=EngineConfig)
    build: int = 1

    @property
    def name(self) -> str:
        """The engine's name as people say it, unique within a suite."""
        return f"{self.variant.name} {self.shown_precision} {self.backend}"

    @property
    def shown_precision(self) -> str:
        """The precision as rows and files name it: with what else tells two builds of it apart."""
        sparse = "+sparse" if self.config.sparse else ""
        again = f"#{self.build}" if self.build > 1 else ""
        return f"{self.precision}{sparse}{again}"

    def options(self, batch_sizes: tuple[int, ...]) -> BuildOptions:
        """Return what the suite asks of the build, but for where timings of tactics are kept."""
        config = self.config
        return BuildOptions(
            batch_sizes=batch_sizes,
            profile=config.profile,
            workspace_mib=config.workspace_mib,
            optimization_level=config.optimization_level,
            sparse=config.sparse,
            hardware_compatible=config.hardware_compatible,
            version_compatible=config.version_compatible,
        )


def plan_engines(suite: Suite) -> tuple[EnginePlan, ...]:
    """Return every engine a suite asks for: variants by precision, their baselines, and the placement reference."""
    plans: dict[str, EnginePlan] = {}
    asked = _asked(suite)
    for variant in suite.variants:
        plans |= {engine.name: engine for engine in (*_candidates(variant, asked), *_baselines(suite, variant))}
    return tuple(_with_reference(list(plans.values())) if suite.bench.ort_placement else plans.values())


def _asked(suite: Suite) -> list[tuple[EngineConfig, str, str]]:
    """Return what every variant is built as: config, runtime and precision; the machine is asked once, not by each."""
    return [
        (config, name, precision)
        for config in suite.engines
        for name in [resolve_backend(config.backend)]
        for precision in config.precisions or backend(name).facts().usual_precisions
    ]


def _candidates(variant: Variant, asked: Iterable[tuple[EngineConfig, str, str]]) -> Iterator[EnginePlan]:
    for config, name, precision in asked:
        yield EnginePlan(variant=variant, precision=precision, backend=name, config=config)


def _baselines(suite: Suite, variant: Variant) -> Iterator[EnginePlan]:
    """Yield PyTorch's rows of a variant; a network that comes as ONNX, or exists as a graph only, has none."""
    if suite.model.name.startswith("onnx:") or variant.makes == "graph":
        return
    for baseline in suite.bench.baselines:
        for precision in suite.bench.baseline_precisions:
            yield EnginePlan(variant=variant, precision=precision, backend=baseline, role="baseline")


def _with_reference(plans: list[EnginePlan]) -> list[EnginePlan]:
    """Put the placement that ONNX Runtime's CPU fuses right behind the first int8 engine there, once."""
    for index, plan in enumerate(plans):
        if (plan.precision, plan.backend) == ("int8", "onnxruntime-cpu"):
            reference = replace(plan, precision="int8-ort", role="reference")
            return [*plans[: index + 1], reference, *plans[index + 1 :]]
    return plans


def needs_calibration(precision: str) -> bool:
    """Say whether calibration images decide an engine of this precision."""
    return precision.startswith("int8")


def made_from(engine: EnginePlan) -> Literal["variant", "graph", "half", "qdq"]:
    """Return the kind of artefact an engine is built from; TensorRT's implicit INT8 takes the float graph."""
    if BACKENDS[engine.backend].is_baseline:
        return "variant"
    if engine.precision in _HALF:
        return "half"
    return "qdq" if engine.precision in _QUANTIZED else "graph"


def source(artefacts: Artefacts, engine: EnginePlan) -> Artefact:
    """Return the artefact an engine is built from."""
    kind = made_from(engine)
    if kind == "variant":
        return artefacts.variant(engine.variant)
    if kind == "half":
        return artefacts.half_graph(engine.variant, precision=engine.precision, method=engine.config.half)
    if kind == "qdq":
        return artefacts.quantized_graph(engine.variant, precision=engine.precision)
    return artefacts.graph(engine.variant)

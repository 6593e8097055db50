"""The plan: which engines a suite asks for, and what each is built from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbench.engines.base import resolve_backend
from trtbench.suite import GRAPH_KINDS

if TYPE_CHECKING:
    from trtbench.pipeline.artefacts import Artefacts
    from trtbench.records import Role
    from trtbench.store import Artefact
    from trtbench.suite import Suite, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """One engine to build: a variant at a precision on a runtime."""

    variant: Variant
    precision: str
    backend: str
    role: Role = "candidate"

    @property
    def name(self) -> str:
        """The engine's name as people say it, unique within a suite."""
        return f"{self.variant.name} {self.precision} {self.backend}"


def plan_engines(suite: Suite) -> tuple[EnginePlan, ...]:
    """Return every engine a suite asks for: variants by precision, their baselines, and the placement reference."""
    plans: dict[str, EnginePlan] = {}
    has_eager = not suite.model.name.startswith("onnx:")
    for variant in suite.variants:
        engines = [
            EnginePlan(variant=variant, precision=precision, backend=resolve_backend(config.backend))
            for config in suite.engines
            for precision in config.precisions
        ]
        if has_eager and variant.kind not in GRAPH_KINDS:
            engines += [
                EnginePlan(variant=variant, precision="fp32", backend=baseline, role="baseline")
                for baseline in suite.bench.baselines
            ]
        plans |= {engine.name: engine for engine in engines}
    return tuple(_with_reference(list(plans.values())) if suite.bench.ort_placement else plans.values())


def _with_reference(plans: list[EnginePlan]) -> list[EnginePlan]:
    """Put the placement that ONNX Runtime's CPU fuses right behind the first int8 engine there, once."""
    for index, plan in enumerate(plans):
        if (plan.precision, plan.backend) == ("int8", "onnxruntime-cpu"):
            reference = replace(plan, precision="int8-ort", role="reference")
            return [*plans[: index + 1], reference, *plans[index + 1 :]]
    return plans


def source(artefacts: Artefacts, engine: EnginePlan) -> Artefact:
    """Return the artefact an engine is built from."""
    if engine.backend == "eager":
        return artefacts.variant(engine.variant)
    if engine.precision == "fp32":
        return artefacts.graph(engine.variant)
    return artefacts.quantized_graph(engine.variant, precision=engine.precision)

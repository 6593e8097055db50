"""The plan: which engines a suite asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbench.engines.base import backend, resolve_backend
from trtbench.make.engines import EnginePlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trtbench.suite import EngineConfig, Suite, Variant


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

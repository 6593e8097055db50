"""The lint says of a graph what NVIDIA's real parser and builder say."""

from __future__ import annotations

import onnx
import pytest

from tests.graph.lint_cases import CASES, Case
from tests.rtx.compiler import compiled, parsed, supported
from tests.rtx.mutations import mutated, subjects
from trtbench.graph.lint import RULES, lint
from trtbench.graph.view import WITHOUT_IMPORTER

pytestmark = pytest.mark.rtx

# Where they part, and why.
_DISAGREEMENTS = {
    "external data": "ours: the file beside the model would be read, and no hash of ours covers it; here it is absent",
}
_OPERATORS = {
    "DeformConv": "TensorRT 10 has a plugin for it, which TensorRT-RTX has not",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_real_parser_and_builder_say_what_the_lint_says(case: Case) -> None:
    found = compiled(case.graph.SerializeToString())
    outcomes = {RULES[rule].outcome for rule, _ in case.breaches}

    assert found.is_parsed == (case.says is None)
    assert case.says is None or case.says in found.faults[0][0]
    assert bool(found.plan_bytes) == case.is_built
    if case.name not in _DISAGREEMENTS:
        assert ("refused" in outcomes) == (not found.is_parsed)
        assert ("fails" in outcomes) == (found.is_parsed and not found.plan_bytes)


@pytest.mark.parametrize(
    "seeds", [range(200), pytest.param(range(200, 3000), marks=pytest.mark.slow)], ids=["200", "2800 more"]
)
def test_the_lint_refuses_of_mutated_graphs_those_that_the_real_parser_refuses(seeds: range) -> None:
    originals = subjects()
    graphs = [mutated(originals[seed % len(originals)], seed=seed) for seed in seeds]
    found = parsed([graph.SerializeToString() for graph, _ in graphs])

    refused = [any(RULES[one.rule].outcome == "refused" for one in lint(graph)) for graph, _ in graphs]
    parted = [
        (seed, names, one.faults)
        for seed, (_, names), one, is_refused in zip(seeds, graphs, found, refused, strict=True)
        if one.is_parsed == is_refused
    ]
    assert parted == []
    assert len(seeds) / 4 < sum(refused) < len(seeds) * 3 / 4


def test_the_originals_of_the_mutated_graphs_are_clean_and_built() -> None:
    for graph in subjects():
        assert lint(graph) == ()
        assert compiled(graph.SerializeToString()).plan_bytes


def test_the_operators_that_the_lint_refuses_are_those_that_the_real_parser_does_not_import() -> None:
    names = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})

    missing = {name for name, is_there in zip(names, supported(names), strict=True) if not is_there}

    assert missing - WITHOUT_IMPORTER == set(_OPERATORS)
    assert set(names) & WITHOUT_IMPORTER <= missing

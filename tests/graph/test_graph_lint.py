from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.graph.lint_cases import CASES, Case, model
from trtbench.graph.lint import RULES, Finding, lint


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_graph_has_these_breaches_and_no_other(case: Case) -> None:
    assert tuple((finding.rule, finding.node) for finding in lint(case.graph)) == case.breaches


def test_the_clean_graph_is_valid() -> None:
    onnx.checker.check_model(model())


def test_a_finding_names_rule_node_and_breach() -> None:
    assert lint(model(s=np.array(-1, np.float32))) == (
        Finding(rule="bad-scale", node="q", message="scale -1; scales are positive and finite"),
        Finding(rule="bad-scale", node="d", message="scale -1; scales are positive and finite"),
    )


def test_a_named_node_is_found_by_its_name() -> None:
    graph = model(s=np.array(0, np.float32))
    graph.graph.node[0].name = "input.QuantizeLinear"
    assert lint(graph)[0].node == "input.QuantizeLinear"


def test_every_rule_has_a_broken_graph() -> None:
    assert {rule for case in CASES for rule, _ in case.breaches} == set(RULES)


def test_a_rule_that_speaks_of_a_runtime_says_which() -> None:
    assert [name for name, rule in RULES.items() if rule.outcome != "own" and not rule.known_of] == []

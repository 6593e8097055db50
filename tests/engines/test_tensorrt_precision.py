"""A requested precision becomes typing, flags by name and a calibrator, or a refusal with its reason and cure."""

from __future__ import annotations

import pytest

from trtbench.engines.base import BuildOptions
from trtbench.engines.tensorrt.library import Abilities
from trtbench.engines.tensorrt.precision import BUILDABLE, plan_precision, usual
from trtbench.errors import UnsupportedError

TEN = Abilities(version="10.16.1.11", has_calibrator=True, has_weak_typing=True)
ELEVEN = Abilities(version="11.4.0.106", has_calibrator=False, has_weak_typing=False)
ADA, AMPERE, TURING = (8, 9), (8, 0), (7, 5)


@pytest.mark.parametrize("abilities", [TEN, ELEVEN], ids=["10", "11"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8", "int8+fp16"])
def test_every_explicit_precision_is_strongly_typed_without_precision_flags(
    precision: str, abilities: Abilities
) -> None:
    plan = plan_precision(precision, abilities=abilities, options=BuildOptions(), compute_capability=AMPERE)

    assert plan.is_strongly_typed
    assert not {"FP16", "BF16", "INT8"} & set(plan.flags)
    assert not plan.needs_calibrator


@pytest.mark.parametrize("precision", BUILDABLE)
def test_tf32_is_set_where_it_is_asked_for_and_cleared_everywhere_else(precision: str) -> None:
    plan = plan_precision(precision, abilities=TEN, options=BuildOptions(), compute_capability=ADA)

    assert ("TF32" in plan.flags) == (precision == "tf32")
    assert ("TF32" in plan.cleared) == (precision != "tf32")


@pytest.mark.parametrize(
    ("precision", "flags"), [("int8-implicit", ("INT8",)), ("int8-implicit+fp16", ("INT8", "FP16"))]
)
def test_implicit_precisions_are_weakly_typed_by_flags_and_calibrated(precision: str, flags: tuple[str, ...]) -> None:
    plan = plan_precision(precision, abilities=TEN, options=BuildOptions(), compute_capability=TURING)

    assert plan.flags == flags
    assert not plan.is_strongly_typed
    assert plan.needs_calibrator
    assert plan.codes is None


@pytest.mark.parametrize(
    ("precision", "instead"), [("int8-implicit", "'int8' "), ("int8-implicit+fp16", r"'int8\+fp16'")]
)
def test_tensorrt_11_refuses_implicit_precisions_with_reason_and_cure(precision: str, instead: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"11 has neither calibrators nor weakly typed.*ask for {instead}"):
        plan_precision(precision, abilities=ELEVEN, options=BuildOptions(), compute_capability=AMPERE)


def test_a_graph_of_the_right_types_is_asked_for() -> None:
    plans = {
        name: plan_precision(name, abilities=TEN, options=BuildOptions(), compute_capability=ADA) for name in BUILDABLE
    }

    assert {name: plan.element_type for name, plan in plans.items() if plan.element_type} == {
        "fp16": "FLOAT16",
        "bf16": "BFLOAT16",
        "int8+fp16": "FLOAT16",
        "fp8+fp16": "FLOAT16",
    }
    assert {name: plan.codes for name, plan in plans.items() if plan.codes} == {
        "int8": "int8",
        "int8+fp16": "int8",
        "fp8": "fp8",
        "fp8+fp16": "fp8",
    }
    assert plans["fp8+fp16"].target == "fp8"
    assert {plan.target for name, plan in plans.items() if name.startswith("int8")} == {"int8"}
    assert plans["bf16"].target == "bf16"


@pytest.mark.parametrize("precision", ["fp8", "fp8+fp16"])
def test_fp8_is_refused_before_ada(precision: str) -> None:
    with pytest.raises(UnsupportedError, match=r"on SM 8\.0.*FP8 tensor cores need SM 8\.9"):
        plan_precision(precision, abilities=ELEVEN, options=BuildOptions(), compute_capability=AMPERE)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_what_turing_would_compute_as_something_else_is_refused_there(precision: str) -> None:
    with pytest.raises(UnsupportedError, match=r"on SM 7\.5.*need SM 8\.0"):
        plan_precision(precision, abilities=TEN, options=BuildOptions(), compute_capability=TURING)


def test_sparse_sets_its_flag_and_is_refused_without_sparse_tensor_cores() -> None:
    options = BuildOptions(sparse=True, version_compatible=True)

    plan = plan_precision("fp16", abilities=ELEVEN, options=options, compute_capability=AMPERE)

    assert plan.flags == ("SPARSE_WEIGHTS", "VERSION_COMPATIBLE")
    with pytest.raises(UnsupportedError, match=r"sparse: true on SM 7\.5"):
        plan_precision("fp16", abilities=ELEVEN, options=options, compute_capability=TURING)


def test_an_unknown_precision_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match="fp32 or tf32 or fp16"):
        plan_precision("int4", abilities=TEN, options=BuildOptions(), compute_capability=AMPERE)


def test_a_suite_without_precisions_gets_those_that_can_win_on_this_machine() -> None:
    assert usual(TEN, compute_capability=AMPERE) == ("fp32", "tf32", "fp16", "int8", "int8+fp16", "int8-implicit+fp16")
    assert usual(ELEVEN, compute_capability=AMPERE) == ("fp32", "tf32", "fp16", "int8", "int8+fp16")
    assert usual(TEN, compute_capability=TURING) == ("fp32", "fp16", "int8", "int8+fp16", "int8-implicit+fp16")
    assert set(usual(TEN, compute_capability=AMPERE)) <= set(BUILDABLE)

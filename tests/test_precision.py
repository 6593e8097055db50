"""The table of precisions answers for all that is built and asked of them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trtbench
from trtbench.engines.base import backend
from trtbench.precision import PRECISIONS, read_shown, shown_precision
from trtbench.suite import BACKENDS, EngineConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = Path(trtbench.__file__).parent


def test_every_runtime_builds_precisions_of_the_table() -> None:
    for name in BACKENDS:
        assert set(backend(name).precisions) <= set(PRECISIONS)


def test_a_suite_may_ask_for_all() -> None:
    assert EngineConfig(precisions=tuple(PRECISIONS)).precisions == tuple(PRECISIONS)
    schema = EngineConfig.model_json_schema()["properties"]["precisions"]
    assert schema["anyOf"][0]["items"]["enum"] == list(PRECISIONS)


def test_what_a_precision_is_made_of_is_in_the_table_too() -> None:
    for one in PRECISIONS.values():
        assert one.halves is None or (PRECISIONS[one.halves].graph == "qdq" and one.graph == "half")
        assert one.explicit is None or (PRECISIONS[one.explicit].is_int8 and one.graph == "float")
        assert one.half is not None or one.graph != "half"


@given(st.sampled_from(list(PRECISIONS)), st.booleans(), st.integers(1, 99))
def test_what_names_show_of_a_precision_reads_back(precision: str, sparse: bool, build: int) -> None:  # noqa: FBT001  hypothesis passes by position
    shown = shown_precision(precision, sparse=sparse, build=build)

    assert read_shown(shown) == (precision, sparse, build)


@pytest.mark.parametrize("text", ["", "#2", "int9", "+sparse", "int8+sparse#2#3"])
def test_a_text_that_names_no_precision_reads_back_as_none_of_the_table(text: str) -> None:
    assert read_shown(text)[0] not in PRECISIONS


def _readings(path: Path) -> Iterator[str]:
    """Yield the calls and comparisons that would read a precision out of its name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = [node.left] if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In) else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parts = node.args if node.func.attr in {"startswith", "endswith", "removeprefix", "removesuffix"} else []
        for part in parts:
            if isinstance(part, ast.Constant) and str(part.value).strip("+-") in {"int8", "fp16", "implicit", "sparse"}:
                yield ast.unparse(node)


def test_no_module_reads_a_precision_out_of_its_name() -> None:
    found = {str(path.relative_to(_PACKAGE)): list(_readings(path)) for path in _PACKAGE.rglob("*.py")}

    assert {path: readings for path, readings in found.items() if readings} == {}

"""A few cases of each cheap kind, the same each time: `make fuzz N=10000` runs all kinds at length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.forked import Server
from tests.fuzz.run import Fuzzing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_no_hostile_input_ends_in_anything_but_a_sentence(tmp_path: Path) -> None:
    with Server() as server:
        fuzzing = Fuzzing(tmp_path, server)
        for kind in fuzzing.cases.kinds():
            failed = [(case.argv, one) for case, one in fuzzing.outcomes(kind, 20) if one.faults]
            assert failed == [], kind

"""The command line as it is, what lies below it in short."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _short(in_short: None) -> None:
    """Processes have their tests in tests/bench, figures in tests/report; those marked `whole` have both here."""

"""Which row to ship, from rows alone: limits, ratios, order, what would change it. No wording and no rounding."""

from __future__ import annotations

from trtbench.decide.choose import Choice, choose

__all__ = ["Choice", "choose"]

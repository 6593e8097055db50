"""Numbers as people read them: the only place that rounds."""

from __future__ import annotations

import math

from trtbench.decide.limits import BYTES_PER_MB

ABSENT = "-"


def significant(value: float | None, *, digits: int = 3) -> str:
    """Write `value` with `digits` significant digits and no exponent; whole digits are never dropped."""
    if value is None:
        return ABSENT
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def fixed(value: float | None, *, decimals: int = 2) -> str:
    """Write `value` with a fixed number of decimals, so that a column can be compared by eye."""
    return ABSENT if value is None else f"{value:.{decimals}f}"


def megabytes(size_bytes: int | None) -> str:
    """Write a size in MB of 10^6 bytes."""
    return ABSENT if size_bytes is None else significant(size_bytes / BYTES_PER_MB)


def millions(count: int | None) -> str:
    """Write a count in millions."""
    return ABSENT if count is None else significant(count / 1e6)


def percent(proportion: float | None) -> str:
    """Write a proportion in percent."""
    return ABSENT if proportion is None else f"{100 * proportion:.2f}"


def decibels(value: float | None) -> str:
    """Write a ratio in decibels; None is of what does not differ at all."""
    return "without a difference" if value is None or math.isinf(value) else f"{fixed(value, decimals=1)} dB"


def probability(value: float | None) -> str:
    """Write a p-value; below a thousandth only that is known well enough to be told."""
    return "<0.001" if value is not None and value < 0.001 else fixed(value, decimals=3)  # noqa: PLR2004  as it reads


def signed(value: float | None, *, decimals: int = 1) -> str:
    """Write a difference with its sign."""
    return ABSENT if value is None else f"{value:+.{decimals}f}"

"""Numbered marks for what is to be said about single rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.rows import Row


@dataclass(frozen=True, slots=True)
class Footnotes:
    """Distinct remarks in the order of their first row; a row's marks are their numbers, from 1."""

    texts: tuple[str, ...]

    def marks(self, *rows: Row) -> str:
        """Return the marks of these rows together, ascending."""
        wanted = {text for row in rows for text in remarks(row)}
        return " ".join(str(number) for number, text in enumerate(self.texts, start=1) if text in wanted)

    def lines(self) -> tuple[str, ...]:
        """Return each mark with its remark."""
        return tuple(f"{number}: {text}" for number, text in enumerate(self.texts, start=1))


def footnotes(rows: Sequence[Row]) -> Footnotes:
    """Collect the remarks of all rows, each once."""
    return Footnotes(tuple(dict.fromkeys(text for row in rows for text in remarks(row))))


def remarks(row: Row) -> tuple[str, ...]:
    """Return what is to be said of a row: its failure, what its numbers are not, and its own notes."""
    told = []
    if row.status != "ok":
        told.append(f"{row.status}: {row.reason or 'no reason was recorded'}")
    if row.simulated:
        told.append("simulated under a test double: no measurement, never ranked")
    if row.latency is not None and row.latency.verdict != "stable":
        told.append(f"latency {row.latency.verdict}: within a process the samples did not settle within 5 %")
    if row.latency is not None and row.latency.throttled_samples:
        told.append(f"{row.latency.throttled_samples} of {row.latency.n} samples were taken while the device held back")
    return (*told, *row.notes)

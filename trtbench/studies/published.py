"""What the source studies published: tables of numbers, each with its source and the row of ours beside it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields of records at run time
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar

import yaml
from pydantic import ConfigDict, TypeAdapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One published row, as `published.yaml` explains its keys; `accuracy` is in percent."""

    label: str
    ours: str
    best: str | None = None
    accuracy: float | None = None
    loss: float | None = None
    mb: float | None = None
    params: int | None = None
    macs: int | None = None
    ms: float | None = None
    samples: int | None = None
    checkpoint: str | None = None
    bits: int | None = None
    zeros: float | None = None
    reach: float | None = None
    aim: float | None = None
    most_bytes: int | None = None
    tried: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """Published rows of one setting, and the suite that has ours; `weights` says whether they start from the same.

    `short` is the suite that stands in where `suite` was not run, and `why` says why it was not.
    """

    id: str
    source: str
    suite: str
    title: str
    network: str
    images: int
    samples: int
    weights: str
    rows: tuple[Number, ...]
    short: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A study: its title and address, and what its numbers suffer from."""

    title: str
    url: str
    faults: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """All that was published."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    sources: Mapping[str, Source]
    tables: tuple[PublishedTable, ...]

    def of_suite(self, suite: str) -> tuple[PublishedTable, ...]:
        """Return the tables whose counterparts a suite has."""
        return tuple(table for table in self.tables if suite in {table.suite, table.short})

    def checkpoints(self, suite: str) -> tuple[tuple[str, int | None], ...]:
        """Return the published files that belong to a suite, and the bits that each is rounded to, each once."""
        rows = (row for table in self.of_suite(suite) for row in table.rows)
        return tuple(dict.fromkeys((row.checkpoint, row.bits) for row in rows if row.checkpoint is not None))


@functools.cache
def published() -> Published:
    """Read the published numbers."""
    text = (resources.files("trtbench.studies") / "published.yaml").read_text(encoding="utf-8")
    return TypeAdapter(Published).validate_json(json.dumps(yaml.safe_load(text)), strict=True)

"""How often a test split was looked at: a suite run again and again until something passes has chosen among them all.

The file stands beside the runs, since it is of what was decided, not of what was made.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbench.disk import storing, write_atomically
from trtbench.errors import StoreError
from trtbench.foreign import read_json

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

FILE_NAME = ".looks.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """The number of a look at a test split, and how many engines all looks so far were at; equal files are one."""

    number: int
    engines: int


def remember_look(runs: Path, test_sha256: str, engines: Collection[str]) -> Looks:
    """Write down that a decision looked at these engines on this test split; one at no new engine is no new look.

    A file that cannot be read is begun anew: it serves a warning, and a run must not fail by it, nor by a full disk.

    Args:
        runs: the folder of the runs.
        test_sha256: of the images and labels.
        engines: sha256 of each file.
    """
    path = runs / FILE_NAME
    seen = _seen(path)
    looks: list[list[str]] = seen.setdefault(test_sha256, [])
    new = set(engines).difference(*looks)
    if new:
        looks.append(sorted(new))
        with contextlib.suppress(StoreError):
            write_atomically(path, json.dumps(seen, indent=1) + "\n")
    return Looks(number=len(looks), engines=sum(map(len, looks)))


def _seen(path: Path) -> dict[str, Any]:
    """Return by test split which engines each look was the first at."""
    try:
        with storing(path):
            found = read_json(path) if path.exists() else {}
    except ValueError:
        return {}
    is_whole = isinstance(found, dict) and all(isinstance(look, list) for looks in found.values() for look in looks)
    return found if is_whole else {}

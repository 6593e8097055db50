"""Test images that are no new images: that stand in the training or validation split too, by pixels or as a photo."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.calibrate.leaks import Repeats, repeats
from trtbench.disk import write_atomically
from trtbench.jsonable import to_jsonable
from trtbench.make.recipe import Facts, recipe

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.make.makings import Makings
    from trtbench.records import Split

_COUNTS = "overlap.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapFacts(Facts):
    """How many images a test split has, and how many of them stand in the other splits."""

    test: int
    train: Repeats
    validation: Repeats


@recipe(kind="overlap", facts=OverlapFacts, content=(_COUNTS,), packages=("numpy",), version=1)
def compared(folder: Path, *, train: Split, validation: Split, test: Split) -> OverlapFacts:
    """Compare every test image with every training and validation image."""
    found = OverlapFacts(
        test=len(test),
        train=repeats(test.images, train.images),
        validation=repeats(test.images, validation.images),
    )
    write_atomically(folder / _COUNTS, json.dumps(to_jsonable(found)))
    return found


def overlap_notes(makings: Makings) -> tuple[str, ...]:
    """Say how many test images stand in the splits that are learnt from and selected on, where any do."""
    data = makings.dataset
    made = makings.book.make(compared, data.name, train=data.train, validation=data.validation, test=data.test)
    counts, total = made.facts, made.facts.test
    return tuple(
        f"{found.images:,} of {total:,} test images stand in the {name} images too ({found.exact:,} by their pixels,"
        f" {found.near:,} as the same photo): accuracy on them {claim}; take them out of one of the two."
        for name, found, claim in (
            ("training", counts.train, "is not accuracy on new images"),
            ("validation", counts.validation, "was selected for"),
        )
        if found.images
    )

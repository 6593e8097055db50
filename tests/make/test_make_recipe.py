"""The key of an artefact is its arguments; a book finds it, makes it once, or tells that it is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import trtbench
from trtbench.errors import RowError, StoreError
from trtbench.make import recipe as recipes
from trtbench.make.recipe import Absent, Aside, Book, Facts, Given, Ingredient, Promise, Recipe, key_of, recipe
from trtbench.records import Dataset, Preprocessing, Split
from trtbench.store import Store
from trtbench.suite import CalibrationConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from trtbench.progress import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Count(Facts):
    count: int
    of: tuple[str, ...] = ()
    shares: dict[str, float] | None = None


_CALLS: list[int] = []


@recipe(kind="numbers", facts=Count, content=("n.txt",), packages=("numpy",), version=1)
def numbers(folder: Path, *, count: int, tell: Aside[Callable[[str], None]]) -> Count:
    _CALLS.append(count)
    if count < 0:
        raise RowError("numbers", expected="0 or more", got=str(count))
    tell.value("made")
    (folder / "n.txt").write_text("x" * count)
    return Count(count=count, of=("a", "b"), shares={"x": 0.5})


@recipe(kind="sums", facts=Count, content=("n.txt",), version=1)
def summed(folder: Path, *, first: Ingredient, second: Ingredient) -> Count:
    text = first.path("n.txt").read_text() + second.path("n.txt").read_text()
    (folder / "n.txt").write_text(text)
    return Count(count=len(text))


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    _CALLS.clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def _quiet(_said: str) -> None: ...


_QUIET = Aside(_quiet)


def test_an_artefact_is_made_once_and_its_facts_come_back_as_the_record_they_were(store: Store) -> None:
    made = Book(store).make(numbers, "three", count=3, tell=_QUIET)
    again = Book(store).make(numbers, "three", count=3, tell=_QUIET)

    assert _CALLS == [3]
    assert made.facts == again.facts == Count(count=3, of=("a", "b"), shares={"x": 0.5})
    assert (made.is_cached, again.is_cached) == (False, True)
    assert json.loads(made.path("artefact.json").read_text())["facts"]["of"] == ["a", "b"]


def test_a_book_tells_what_it_makes_reuses_and_makes_again_and_what_changed(store: Store) -> None:
    told: list[Event] = []
    book = Book(store, label="s", tell=told.append)
    book.make(numbers, "n", count=3, tell=_QUIET)
    book.make(numbers, "n", count=3, tell=_QUIET)  # at hand: nothing to tell
    Book(store, label="s", tell=told.append).make(numbers, "n", count=3, tell=_QUIET)
    book.make(numbers, "n", count=4, tell=_QUIET)

    assert [event.state for event in told] == ["started", "done", "cached", "note", "started", "done"]
    assert told[3].detail == "made again: count changed"


def test_what_failed_once_is_not_tried_again(store: Store) -> None:
    book = Book(store)
    for _ in range(2):
        with pytest.raises(RowError, match="0 or more"):
            book.make(numbers, "n", count=-1, tell=_QUIET)

    assert _CALLS == [-1]


def test_a_dry_book_makes_nothing_and_names_all_that_is_missing_in_order(store: Store) -> None:
    Book(store).make(numbers, "two", count=2, tell=_QUIET)
    book = Book(store, is_dry=True)

    found, absent = book.make(numbers, "two", count=2, tell=_QUIET), book.make(numbers, "nine", count=9, tell=_QUIET)
    promised = book.make(summed, "sum", first=found, second=absent)

    assert found.facts.count == 2
    assert book.missing == [("numbers", "nine"), ("sums", "sum")]
    assert isinstance(promised, Promise)
    assert promised.kind == "sums"
    with pytest.raises(Absent):
        _ = promised.sha256
    assert _CALLS == [2]


def test_what_is_at_hand_is_found_under_any_label(store: Store) -> None:
    book = Book(store, label="a")
    made = book.make(numbers, "n", count=1, tell=_QUIET)

    assert book.labelled("b").make(numbers, "n", count=1, tell=_QUIET) is made
    assert book.find(numbers, count=1, tell=_QUIET) is made
    assert book.find(numbers, count=2, tell=_QUIET) is None


def test_facts_of_another_shape_are_refused(store: Store) -> None:
    made = Book(store).make(numbers, "n", count=1, tell=_QUIET)
    listing = made.path("artefact.json")
    listing.write_text(listing.read_text().replace('"count": 1', '"count": "one"', 2))
    listing.write_text(listing.read_text().replace('"inputs": {', '"inputs": {"x": 1, ', 1))

    with pytest.raises(StoreError, match="those of numbers, version 1"):
        Book(store).make(numbers, "n", count=1, tell=_QUIET)


def test_a_key_changes_with_the_recipe_its_version_and_its_packages(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(one: Recipe[..., Any], **arguments: Any) -> str:
        return store.key(one.kind, one.inputs(arguments))

    newer = recipe(kind="numbers", facts=Count, content=("n.txt",), packages=("numpy",), version=2)(numbers.maker)
    before = key(numbers, count=3)

    assert before == key(numbers, count=3, tell=_QUIET)
    assert len({before, key(numbers, count=4), key(newer, count=3), key(summed, count=3)}) == 4
    monkeypatch.setattr(trtbench, "__version__", "9.9.9")
    assert key(numbers, count=3) == before
    monkeypatch.setattr(recipes, "installed", lambda _package: "0.0")
    assert key(numbers, count=3) != before


def _split(value: int) -> Split:
    return Split(images=np.full((1, 3, 2, 2), value, np.uint8), labels=np.zeros(1, np.int64))


def _dataset(**changes: Any) -> Dataset:
    fit = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=2)
    fields: dict[str, Any] = {"name": "d", "classes": ("a", "b"), "preprocessing": fit}
    fields |= {"train": _split(0), "validation": _split(1), "test": _split(2)}
    return Dataset(**fields | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "e"},
        {"classes": ("a", "c")},
        {"train": _split(9)},
        {"validation": _split(9)},
        {"test": _split(9)},
        {"preprocessing": Preprocessing(mean=(0.5,) * 3, std=(1.0,) * 3, size=2)},
    ],
)
def test_everything_of_a_dataset_is_its_key(changes: Mapping[str, Any]) -> None:
    assert key_of(_dataset(**changes)) != key_of(_dataset())


def test_a_value_that_has_no_key_says_so() -> None:
    assert key_of(Given(object(), key="abc")) == "abc"
    assert key_of({"a": (1, None, CalibrationConfig(seed=3))})["a"][2]["seed"] == 3
    with pytest.raises(TypeError, match="wrap it in Given or Aside"):
        key_of(object())
    with pytest.raises(TypeError, match="inside another"):
        key_of((Aside(1),))

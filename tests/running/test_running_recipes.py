"""What makes a suite's artefacts again, and what does not."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import TYPE_CHECKING

import trtbench
from trtbench.make import graphs
from trtbench.make.makings import Makings
from trtbench.make.networks import dense, variant_network
from trtbench.make.recipe import Promise
from trtbench.records import PACKED_VERSION
from trtbench.running.plan import build_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from trtbench.make.makings import Places
    from trtbench.progress import Event
    from trtbench.suite import Suite

    Make = Callable[..., Suite]


def test_another_version_of_the_package_makes_nothing_again(
    suite: Make, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_suite(suite(), places)
    told: list[Event] = []
    monkeypatch.setattr(trtbench, "__version__", "99.0.0")

    build_suite(suite(), places, tell=told.append)

    assert [event for event in told if event.state == "started" and event.stage != "data"] == []


def test_another_version_of_a_recipe_makes_its_artefacts_again_and_what_comes_of_them(
    suite: Make, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_suite(suite(), places)
    told: list[Event] = []
    newer = dataclasses.replace(graphs.quantized, version=graphs.quantized.version + 1)
    monkeypatch.setattr(graphs, "quantized", newer)

    build_suite(suite(), places, tell=told.append)

    assert {event.stage for event in told if event.state == "started"} == {"data", "qdq"}  # the same graphs came of it
    notes = {event.detail for event in told if event.state == "note" and event.stage != "data"}
    assert notes == {"made again: recipe changed"}


def test_what_was_packed_in_another_format_is_made_again(
    suite: Make, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = suite(variants="[{kind: codec, name: packed, clusters: null, fine_tune: false}]")
    made = variant_network(Makings(text, places), text.variants[0])
    monkeypatch.setattr("trtbench.make.networks.PACKED_VERSION", PACKED_VERSION + 1)

    assert variant_network(Makings(text, places), text.variants[0]).key != made.key


def test_a_training_is_kept_for_the_number_of_threads_it_ran_on(suite: Make, places: Places) -> None:
    text = suite()
    budget = text.fine_tune.model_copy(update={"epochs": 0})
    text = text.model_copy(update={"model": text.model.model_copy(update={"checkpoint": None, "train": budget})})
    makings = Makings(text, places)
    made, again, other = dense(makings), *(Makings(text, places, is_dry=True) for _ in range(2))
    other.__dict__["computing"] = replace(makings.computing, threads=makings.computing.threads + 1)

    assert dense(again).sha256 == made.sha256
    assert isinstance(dense(other), Promise)

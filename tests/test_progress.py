"""What long work tells of itself is summed by stage."""

from __future__ import annotations

from trtbench.progress import Event, Stages


def test_a_stage_takes_what_its_items_took_each_counted_once() -> None:
    told: list[Event] = []
    stages = Stages(told.append)
    events = [
        Event(stage="graph", item="a", state="cached", seconds=2.0),
        Event(stage="graph", item="a", state="cached", seconds=2.0),
        Event(stage="graph", item="b", state="done", seconds=1.0),
        Event(stage="time", item="batch 1", state="progress", share=0.5),
    ]

    for event in events:
        stages(event)

    assert stages.seconds == {"graph": 3.0}
    assert told == events

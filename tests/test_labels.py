"""Labels of a job: bounded and harmless, and in all that is told of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from support import eventually

from greenroom import NoCapacity, ProcessPool
from greenroom.job_labels import LONGEST_TEXT, MOST_LABELS, label_text, tidy_labels
from greenroom.pool.events import Event, JobAccepted, JobEnded, JobStarted, TurnedDown

MakeApp = Callable[[str], str]

APP = """
import logging

@app.entrypoint
async def entrypoint(ctx):
    logging.getLogger("calls").info("hello")
"""

LABELS = {"room": "hall", "agent": "greeter"}


def test_labels_are_few_short_and_harmless() -> None:
    evil = {"room": "hall\n12:00:00.000 ERROR  forged\x1b[2J\u202e", "empty": "", "long": "x" * 10_000}
    tidy = tidy_labels(evil | {f"n{number}": "more" for number in range(100)})
    assert len(tidy) == MOST_LABELS
    assert tidy["room"] == "hall 12:00:00.000 ERROR  forged\\x1b[2J\\u202e"
    assert "empty" not in tidy
    assert len(tidy["long"]) == LONGEST_TEXT
    assert tidy["long"] == label_text("x" * 10_000), "or a filter could not find it"
    assert tidy_labels(None) == {}
    assert tidy_labels(tidy) == tidy


async def test_labels_stand_in_events_in_the_report_and_in_each_log_line(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    events: list[Event] = []
    async with ProcessPool(make_app(APP), num_idle_processes=1) as pool:
        pool.subscribe(events.append)
        handle = await pool.launch(source="door", labels={**LABELS, "caller": ""})
        assert handle.labels == LABELS
        assert (await handle.wait()).labels == LABELS
        await eventually(lambda: any(isinstance(event, JobEnded) for event in events), "the job's end")
    told = [event.labels for event in events if isinstance(event, (JobAccepted, JobStarted))]
    assert told == [LABELS, LABELS]
    lines = {record.getMessage(): record for record in caplog.records}
    assert vars(lines["hello"])["labels"] == LABELS
    told_of = [vars(record) for record in caplog.records if getattr(record, "job_id", None) == handle.id]
    assert "process_ended" in [each.get("event") for each in told_of]
    assert [each["labels"] for each in told_of] == [LABELS] * len(told_of)


async def test_a_job_that_is_turned_down_is_told_with_its_labels(make_app: MakeApp) -> None:
    events: list[Event] = []
    async with ProcessPool(make_app(APP), num_idle_processes=0, max_jobs=1) as pool:
        pool.subscribe(events.append)
        held = pool.submit(timeout=50.0)
        with pytest.raises(NoCapacity):
            await pool.reserve(labels=LABELS)
        await held.wait()
    assert [event.labels for event in events if isinstance(event, TurnedDown)] == [LABELS]

"""What a worker remembers of its jobs, and how a result becomes strict JSON."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from admissions import boundless_admission
from hypothesis import given
from hypothesis import strategies as st

from greenroom import ProcessPool
from greenroom.pool.recent_reports import SHORT
from greenroom.server.admission import DuplicateJob, Offer
from greenroom.server.job_registry import EndedJob, JobRegistry
from greenroom.server.web.results import strict_json

ECHO = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""

texts = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(
    ["NaN", "\\ud800", "Infinity", '"NaN', "\ud800", "\U0001f600", "\ud83d", "\\"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def _strict(value: Any) -> Any:
    """What it should become: no half characters, no numbers that JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return value


@given(st.lists(values.filter(lambda value: not isinstance(value, dict)), max_size=4))
def test_results_become_strict_json(value: list[Any]) -> None:
    text = strict_json(json.dumps(value).encode())
    decoded = msgspec.json.decode(text)  # refuses NaN and half surrogate pairs
    assert json.dumps(decoded) == json.dumps(json.loads(text))


@given(st.lists(texts | st.floats(), max_size=6))
def test_strict_json_changes_nothing_else(value: list[Any]) -> None:
    assert json.loads(strict_json(json.dumps(value).encode())) == _strict(value)


@pytest.mark.parametrize("piece", ["\\u4e2d", "\\\\", '\\"', "x", "\\ud83d\\ude00", "\\ud800"])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_a_long_result_becomes_strict_json_in_little_memory(piece: str, shift: int) -> None:
    text = f'["{"x" * shift}{piece * 200_000}\\ud800", NaN, "NaN", -1{", 1" * 100_000}, -Infinity]'.encode()
    expected = _strict(json.loads(text))
    tracemalloc.start()
    try:
        made = strict_json(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert json.loads(made) == expected
    assert peak < 3 * max(len(text), len(made))


async def test_the_latest_jobs_are_kept_and_the_latest_results(make_app: Callable[[str], str]) -> None:
    async with ProcessPool(make_app(ECHO), num_idle_processes=1) as pool:
        registry = JobRegistry(kept_jobs=3, kept_result_bytes=250)
        admission = boundless_admission(pool, registry, offer_timeout=20)
        for number in range(5):
            offer = Offer("test", b"j" + json.dumps("x" * 98).encode(), f"call-{number}")
            handle = (await admission.offer(offer)).start()
            assert registry.live() == [handle]
            await registry.settled()
        ended = registry.ended()
        assert [job.report.job_id for job in ended] == ["call-2", "call-3", "call-4"]
        assert [job.result_dropped for job in ended] == [True, False, False]
        assert ended[0].report.result is None
        assert ended[0].report.outcome == "succeeded"
        assert registry.find("call-1") is None
        assert isinstance(registry.find("call-4"), EndedJob)
        with pytest.raises(DuplicateJob, match="has ended"):
            await admission.offer(Offer("test", b"jnull", "call-4"))
        (await admission.offer(Offer("test", b"jnull", "call-1"))).start()
        await registry.settled()


RAISES = """
@app.entrypoint
async def entrypoint(ctx):
    raise ValueError("x" * 20_000)
"""


async def test_the_texts_of_the_oldest_reports_are_cut_above_a_sum(make_app: Callable[[str], str]) -> None:
    """Each report has the message three times: by itself, in the detail, and in the traceback."""
    async with ProcessPool(make_app(RAISES), num_idle_processes=1) as pool:
        registry = JobRegistry(kept_text=150_000)
        admission = boundless_admission(pool, registry, offer_timeout=20)
        for number in range(4):
            (await admission.offer(Offer("test", b"jnull", f"call-{number}"))).start()
            await registry.settled()
        sizes = [len(job.report.error.message) for job in registry.ended() if job.report.error]
        assert sizes[2:] == [20_000, 20_000]
        assert all(SHORT < size < SHORT + 100 for size in sizes[:2])
        assert "characters more" in str(registry.ended()[0].report.error)
        assert "characters before" in registry.ended()[0].report.error.traceback
        assert [job.report.reason for job in registry.ended()] == ["raised"] * 4


async def test_a_session_that_was_taken_and_not_started_has_its_id_to_itself(
    make_app: Callable[[str], str],
) -> None:
    async with ProcessPool(make_app(ECHO), num_idle_processes=2) as pool:
        registry = JobRegistry()
        admission = boundless_admission(pool, registry, offer_timeout=20)
        offer = Offer("test", b"jnull", "call")
        acceptance = await admission.offer(offer)
        with pytest.raises(DuplicateJob, match="offered before"):
            await admission.offer(offer)
        acceptance.release("nobody came")
        (await admission.offer(offer)).start()
        await registry.settled()

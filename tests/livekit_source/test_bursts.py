"""A burst of more rooms than idle processes: each offer has an answer, and each accepted job runs or fails in words."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

import pytest
from dispatcher import Line, a_job
from livekit.protocol import agent
from source_scene import ACTOR, MakeApp, Scene, scene
from support import eventually

ROOMS = 10
HOOK = """
@app.request
async def request(request):
    return greenroom.Accept()
"""
ENDED = {"JS_SUCCESS", "JS_FAILED"}


async def pids_of(at: Scene, state: str) -> list[int]:
    processes = (await at.worker.get("/v1/pool")).body["processes"]
    return [each["pid"] for each in processes if each["state"] == state]


async def kill_zygote(at: Scene, line: Line) -> Line:
    os.kill((await at.worker.get("/v1/pool")).body["zygote_pid"], signal.SIGKILL)
    return line


async def kill_idle(at: Scene, line: Line) -> Line:
    for pid in await pids_of(at, "reserved") + await pids_of(at, "idle"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return line


async def kill_hook(at: Scene, line: Line) -> Line:
    for pid in await pids_of(at, "resident"):
        os.kill(pid, signal.SIGKILL)
    return line


async def drop_connection(at: Scene, line: Line) -> Line:
    await line.drop()
    return await (await at.dispatcher.line()).ready()


async def offer_all(line: Line) -> list[str]:
    """Offer all jobs at once, assign those that are accepted, and return their ids."""
    jobs = [a_job(f"AJ_{number}", room=f"room-{number}", metadata="quick") for number in range(ROOMS)]

    async def offer(job: agent.Job) -> str | None:
        if not (await line.offer(job)).available:
            return None
        await line.assign(job)
        return job.id

    return [job_id for job_id in await asyncio.gather(*map(offer, jobs)) if job_id is not None]


async def test_each_room_of_a_burst_is_taken_and_runs_once(make_app: MakeApp) -> None:
    async with scene(make_app, source=ACTOR + HOOK) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_before", metadata="quick"))  # a process was warm: how long one takes is known
        accepted = await offer_all(line)
        assert len(accepted) == ROOMS
        await at.started("AJ_before", *accepted)
        for job_id in accepted:
            await line.update(job_id, agent.JS_SUCCESS)


@pytest.mark.parametrize("fault", [kill_zygote, kill_idle, kill_hook], ids=lambda fault: fault.__name__)
async def test_a_fault_in_the_midst_of_a_burst_leaves_no_room_without_a_word(make_app: MakeApp, fault: object) -> None:
    assert callable(fault)
    async with scene(make_app, source=ACTOR + HOOK) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_before", metadata="quick"))
        burst = asyncio.create_task(offer_all(line))
        await eventually(lambda: any(line.answers(f"AJ_{number}") for number in range(ROOMS)), "the first answer")
        await fault(at, line)
        accepted = await burst
        for job_id in accepted:
            await eventually(lambda job_id=job_id: ENDED & {*line.updates(job_id)}, f"a word on {job_id}")  # type: ignore[misc]
        starts = at.stage.starts()
        ran = [job_id for job_id in accepted if "JS_SUCCESS" in line.updates(job_id)]
        assert all(starts[job_id] == 1 for job_id in ran)
        assert max(starts.values()) == 1  # and none ran twice
        await at.worker.until("/v1/pool", lambda answer: answer.body["idle"])  # there may be no zygote yet
        await line.runs(a_job("AJ_after", metadata="quick"))


async def test_a_burst_whose_connection_is_lost_frees_its_processes(make_app: MakeApp) -> None:
    async with scene(make_app, source=ACTOR + HOOK) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_before", metadata="quick"))
        for number in range(ROOMS):
            await line.ask(a_job(f"AJ_{number}", room=f"room-{number}", metadata="quick"))
        await eventually(lambda: any(line.answers(f"AJ_{number}") for number in range(ROOMS)), "the first answer")
        again = await drop_connection(at, line)
        await again.runs(a_job("AJ_after", metadata="quick"))
        await at.worker.until("/v1/pool", lambda answer: answer.body["jobs"] == 0)
        await at.started("AJ_before", "AJ_after")

"""W1 to W6: the worker against a dispatcher that misbehaves, over a real socket, with the real command."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from dispatcher import Dispatcher, Line, a_job, token
from faults.stage import Stage, Visit
from livekit.protocol import agent
from server.running_worker import Answer, RunningWorker
from source_scene import ACTOR, MakeApp, Scene, scene
from support import eventually

from greenroom.system import proc

WORDS = str.maketrans(":/.", "___")
Misdeed = Callable[[Line], Awaitable[object]]


def is_free(answer: Answer) -> bool:
    """No process is kept for a job. The idle ones may be more than the target by now."""
    return answer.body["jobs"] == 0 and answer.body["idle"] >= 2


# --- W1: a dispatcher that misbehaves -------------------------------------------------------------


async def close_at_once(line: Line) -> None:
    await line.socket.close()


async def drop_after_registration(line: Line) -> None:
    await line.registers()
    await line.drop()


async def send_garbage(line: Line) -> None:
    await line.registers()
    await line.socket.send_bytes(b"\xff\xff\xff garbage")


async def send_garbage_first(line: Line) -> None:
    await line.socket.send_bytes(b"\xff\xff\xff garbage")


async def send_text(line: Line) -> None:
    await line.registers()
    await line.socket.send_str('{"availability": {}}')


async def offer_before_registration(line: Line) -> None:
    await line.ask(a_job("AJ_early"))


async def send_too_much(line: Line) -> None:
    await line.registers()
    with suppress(ConnectionError):  # it need not hear all of it out
        await line.socket.send_bytes(bytes(5 * 1024 * 1024))


@pytest.mark.parametrize(
    ("misdeed", "cause"),
    [
        (close_at_once, "the server closed the connection"),
        (drop_after_registration, "the server closed the connection"),
        (send_garbage, "bytes that are no message"),
        (send_garbage_first, "bytes that are no message"),
        (send_text, "a text frame"),
        (offer_before_registration, "Offered before it had registered"),
        (send_too_much, "the connection broke|the server closed"),
    ],
)
async def test_W1_a_misbehaving_server_costs_its_connection_and_nothing_else(
    make_app: MakeApp, misdeed: Misdeed, cause: str
) -> None:
    async with scene(make_app) as at:
        line = await at.dispatcher.line()
        await misdeed(line)
        await at.worker.logs(cause)
        await line.closes()
        again = await (await at.dispatcher.line()).ready()
        await again.runs(a_job("AJ_1"))


@pytest.mark.more
async def test_W1_a_server_that_stays_silent_is_left(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await at.dispatcher.line()
        await at.worker.logs("did not register the worker within 10 s")
        await line.closes()
        await (await at.dispatcher.line()).ready()


async def test_W1_a_server_that_goes_away_is_left_for_a_new_connection(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        message = agent.ServerMessage()
        message.go_away.reason = "maintenance"
        await line.socket.send_bytes(message.SerializeToString())
        await at.worker.logs("requests a connection to another server: maintenance")
        await line.closes()
        await (await at.dispatcher.line()).ready()


async def test_W1_messages_that_nobody_knows_yet_are_passed_over(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.socket.send_bytes(b"\x9a\x06\x00")
        await line.socket.send_bytes(b"")
        await line.runs(a_job("AJ_1"))


async def test_W1_a_job_that_was_never_offered_does_not_run(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.assign(a_job("AJ_wild"))
        await at.worker.logs(r"job AJ_wild is assigned, but is not started: .*never offered")
        await line.runs(a_job("AJ_1"))
        await at.started("AJ_1")


async def test_W1_a_job_that_was_turned_down_does_not_run(make_app: MakeApp) -> None:
    async with scene(make_app, "--max-jobs", "1") as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        assert not (await line.offer(a_job("AJ_2"))).available
        await line.assign(a_job("AJ_2"))
        await at.worker.logs(r"job AJ_2 is assigned, but is not started: .*rejected")
        await at.started("AJ_1")


async def test_W1_a_job_that_is_assigned_twice_runs_once(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        await line.assign(a_job("AJ_1"))
        await at.worker.logs(r"job AJ_1 is assigned, but is not started: .*live")
        (await at.stage.next("job")).order("leave")
        await line.update("AJ_1", agent.JS_SUCCESS)
        await line.assign(a_job("AJ_1"))
        await at.worker.logs(r"job AJ_1 is assigned, but is not started: .*ended")
        await at.started("AJ_1")


async def test_W1_an_assignment_that_does_not_come_gives_the_process_back(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        assert (await line.offer(a_job("AJ_1"))).available
        await at.worker.logs(r"job AJ_1 was accepted, but not assigned within 7.5 s")
        await line.assign(a_job("AJ_1"))  # late
        await at.worker.logs(r"job AJ_1 is assigned, but is not started: .*expired")
        assert "7.5 s" in (await line.update("AJ_1", agent.JS_FAILED)).error
        await line.assign(a_job("AJ_1"))
        await at.worker.logs(r"job AJ_1 is assigned, but is not started: .*ended")
        await line.runs(a_job("AJ_2"))
        (await at.stage.next("job")).order("leave")
        await line.update("AJ_2", agent.JS_SUCCESS)
        assert line.updates("AJ_1") == ["JS_FAILED"]
        await at.worker.until("/v1/pool", is_free)
        await at.started("AJ_2")


async def test_S3_an_assignment_that_comes_while_the_worker_is_stopped_is_carried_out(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        assert (await line.offer(a_job("AJ_1"))).available
        at.worker.signal(signal.SIGSTOP)
        await line.assign(a_job("AJ_1"))
        await asyncio.sleep(8.5)  # longer than an assignment is waited for
        at.worker.signal(signal.SIGCONT)
        await line.update("AJ_1", agent.JS_RUNNING)
        await at.started("AJ_1")
        assert line.updates("AJ_1") == ["JS_RUNNING"]


@pytest.mark.more
async def test_S3_an_offer_that_comes_while_the_worker_is_stopped_is_rejected(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        at.worker.signal(signal.SIGSTOP)
        await eventually(lambda: proc.stat(at.worker.pid).state == "T", "the stop of the worker")
        await line.ask(a_job("AJ_1"))
        await asyncio.sleep(1.0)  # longer than what is no stall
        at.worker.signal(signal.SIGCONT)
        assert not (await line.answer("AJ_1")).available
        await at.worker.logs(r"job AJ_1 from livekit was turned down \(stalled\)")
        for number in range(2, 20):
            await asyncio.sleep(0.2)  # a stall is not over at once
            if (await line.offer(a_job(f"AJ_{number}"))).available:
                break
        else:
            pytest.fail("no offer is accepted after a stall")
        assert not at.stage.starts()


async def test_W1_an_offer_that_comes_twice_is_one_job(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        first = await line.offer(a_job("AJ_1"))
        await line.ask(a_job("AJ_1"))
        await eventually(lambda: len(line.answers("AJ_1")) == 2, "a second answer")
        assert first.available
        assert line.answers("AJ_1") == [True, True]
        await line.assign(a_job("AJ_1"))
        await line.update("AJ_1", agent.JS_RUNNING)
        await line.ask(a_job("AJ_1"))
        await eventually(lambda: line.answers("AJ_1") == [True, True, False], "the answer that it runs already")
        await at.started("AJ_1")


# --- registration ---------------------------------------------------------------------------------


async def test_a_worker_says_who_it_is_and_agents_get_what_the_server_says(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await at.dispatcher.line()
        request = await line.registers("AW_7")
        assert (request.agent_name, request.type) == ("actor", agent.JT_ROOM)
        assert request.allowed_permissions.hidden
        assert request.allowed_permissions.can_publish
        assert line.headers["Authorization"].startswith("Bearer ey")
        answer = await line.offer(a_job("AJ_1"))
        assert answer.participant_identity == "agent-AJ_1"
        await line.assign(a_job("AJ_1"), url="ws://room.example")
        await line.update("AJ_1", agent.JS_RUNNING)
        await eventually(lambda: at.stage.noted("order"), "the start of the job")
        (seen,) = at.stage.noted("order")
        assert seen == ["AJ_1", "0", "ws://room.example", "agent-AJ_1", "AW_7", token(a_job("AJ_1"))]


async def test_a_refused_key_is_explained_and_tried_again(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        at.dispatcher.refuse_with = 401
        await at.worker.logs(r"refused the API key \(401\): check livekit_api_key")
        shown = await at.worker.until(
            "/pressure", lambda answer: answer.body["sources"]["livekit"]["state"] == "disconnected"
        )
        assert "401" in shown.body["sources"]["livekit"]["detail"]
        at.dispatcher.refuse_with = None
        await (await at.dispatcher.line()).ready()
        await at.worker.until("/pressure", lambda answer: answer.body["sources"]["livekit"]["state"] == "connected")


async def test_two_names_at_two_servers_are_four_registrations(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, Dispatcher() as one, Dispatcher() as other:
        urls, names = f"{one.url},{other.url}", "first,second"
        environment = {**os.environ, **one.environment}
        options = ("--livekit-url", urls, "--livekit-agent-name", names)
        async with RunningWorker(stage.app(ACTOR), *options, env=environment):
            for dispatcher in (one, other):
                lines = [await dispatcher.line() for _ in range(2)]
                assert {(await line.registers()).agent_name for line in lines} == {"first", "second"}
                await lines[0].ready()
                await lines[0].runs(a_job(f"AJ_{dispatcher.url}".translate(WORDS)))
            await eventually(lambda: len(stage.starts()) == 2, "a start on each server")


async def test_a_reload_that_changes_the_agent_name_says_what_to_do(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        at.worker.signal(signal.SIGHUP)
        await at.worker.logs("serving generation 2|reloaded")
        path = at.app.partition(":")[0]
        Path(path).write_text(Path(path).read_text().replace('"agent_name": "actor"', '"agent_name": "other"'))
        at.worker.signal(signal.SIGHUP)
        await at.worker.logs("has another agent name, type or permissions: restart the worker")
        await line.runs(a_job("AJ_1"))
        assert sum("another agent name" in text for text in at.worker.lines) == 1


async def test_without_a_url_the_worker_ends_and_says_what_is_missing(make_app: MakeApp) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVEKIT_")}
    source = 'app.manifest["livekit"] = {"agent_name": ""}\n@app.entrypoint\nasync def run(ctx): ...\n'
    async with RunningWorker(make_app(source), env=environment) as worker:
        await worker.logs(r"livekit_url \(LIVEKIT_URL\), livekit_api_key \(LIVEKIT_API_KEY\)")
        assert await worker.ends() == 2


# --- W2: answers ----------------------------------------------------------------------------------


async def test_W2_a_full_worker_says_so_before_it_is_asked(make_app: MakeApp) -> None:
    async with scene(make_app, "--max-jobs", "1") as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        full = await line.status(lambda status: status.status == agent.WS_FULL)
        assert full.load == 1.0
        line.messages.clear()
        (await at.stage.next("job")).order("leave")
        await line.update("AJ_1", agent.JS_SUCCESS)
        await line.status(lambda status: status.status == agent.WS_AVAILABLE)


async def test_W2_a_burst_is_answered_against_reserved_processes_alone(make_app: MakeApp) -> None:
    async with scene(make_app, "--livekit-offer-timeout", "0") as at:
        line = await (await at.dispatcher.line()).ready()
        jobs = [a_job(f"AJ_{number}") for number in range(12)]
        for job in jobs:
            await line.ask(job)
        answers = [await line.answer(job.id) for job in jobs]
        taken = [job for job, answer in zip(jobs, answers, strict=True) if answer.available]
        assert len(taken) >= 2
        for job in taken:
            await line.assign(job)
        for job in taken:
            await line.update(job.id, agent.JS_RUNNING)
        await at.started(*(job.id for job in taken))


HELD_PREWARM = (
    ACTOR
    + """
@app.prewarm
async def prewarm(proc):
    await on_stage("prewarm")
    note("warm")
"""
)


async def promised_to_a_third(at: Scene) -> tuple[Line, Visit]:
    """Two jobs run in the two idle processes. A third is accepted and assigned, whose process is not warm yet."""
    for _ in range(2):
        (await at.stage.next("prewarm")).order("go on")
    line = await (await at.dispatcher.line()).ready()
    await at.worker.until("/v1/pool", lambda answer: answer.body["idle"] == 2)
    for number in range(3):
        await line.ask(a_job(f"AJ_{number}"))
    for number in range(3):
        assert (await line.answer(f"AJ_{number}")).available
        await line.assign(a_job(f"AJ_{number}"))
    await at.started("AJ_0", "AJ_1")
    return line, await at.stage.next("prewarm")


OPTIONS = ("--livekit-offer-timeout", "2.3", "--max-concurrent-prewarms", "2")


async def test_W2_in_a_burst_a_room_is_accepted_before_its_process_is_warm(make_app: MakeApp) -> None:
    async with scene(make_app, *OPTIONS, source=HELD_PREWARM) as at:
        line, third = await promised_to_a_third(at)
        third.order("go on")
        await line.update("AJ_2", agent.JS_RUNNING)
        await at.started("AJ_0", "AJ_1", "AJ_2")


async def test_W3_a_job_that_waits_for_its_process_is_let_go(make_app: MakeApp) -> None:
    async with scene(make_app, *OPTIONS, source=HELD_PREWARM) as at:
        line, third = await promised_to_a_third(at)
        await line.terminate("AJ_2")
        await line.update("AJ_2", agent.JS_SUCCESS)
        third.order("go on")
        await at.worker.until("/v1/pool", lambda answer: answer.body["idle"] >= 1)
        await at.started("AJ_0", "AJ_1")
        assert line.updates("AJ_2") == ["JS_SUCCESS"]


async def test_W2_a_job_that_waits_for_its_process_beyond_the_drain_is_reported_as_failed(make_app: MakeApp) -> None:
    async with scene(make_app, *OPTIONS, "--drain-timeout", "0.2", source=HELD_PREWARM) as at:
        line, _ = await promised_to_a_third(at)
        at.worker.signal(signal.SIGTERM)
        assert "the pool was drained" in (await line.update("AJ_2", agent.JS_FAILED)).error
        await at.worker.ends()
        assert at.stage.starts() == {"AJ_0": 1, "AJ_1": 1}


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("raise", "raised: .*ValueError: no such table"),
        ("crash", "signaled: .*SIGKILL"),
        ("stall", "stalled: "),
    ],
)
async def test_W2_a_job_that_fails_is_reported_as_what_it_was(make_app: MakeApp, what: str, error: str) -> None:
    async with scene(make_app, "--stall-timeout", "0.5") as at:
        line = await (await at.dispatcher.line()).ready()
        job = a_job("AJ_1", metadata=what)
        assert (await line.offer(job)).available
        await line.assign(job)
        update = await line.update("AJ_1", agent.JS_FAILED)
        assert line.updates("AJ_1") == ["JS_RUNNING", "JS_FAILED"]
        assert re.search(error, update.error), update.error


async def test_W2_a_job_whose_process_never_starts_it_is_reported_at_once(make_app: MakeApp) -> None:
    source = (
        ACTOR
        + """
from greenroom.zygote.child_main import ChildMain

async def die(self, start, metadata):
    os._exit(9)

ChildMain._perform = die
"""
    )
    async with scene(make_app, source=source) as at:
        line = await (await at.dispatcher.line()).ready()
        assert (await line.offer(a_job("AJ_1"))).available
        await line.assign(a_job("AJ_1"))
        update = await line.update("AJ_1", agent.JS_FAILED)
        assert line.updates("AJ_1") == ["JS_FAILED"]
        assert update.error


# --- W3: termination ------------------------------------------------------------------------------


async def test_W3_a_job_that_waits_for_its_assignment_is_let_go(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        assert (await line.offer(a_job("AJ_1"))).available
        await line.terminate("AJ_1")
        await at.worker.until("/v1/pool", is_free)
        await line.assign(a_job("AJ_1"))
        await at.worker.logs("AJ_1 is assigned, but is not started")
        assert at.stage.starts() == {}


HELD_START = (
    ACTOR
    + """
from greenroom.zygote.child_main import ChildMain

acknowledge_and_perform = ChildMain._perform

async def hold(self, start, metadata):
    block_on_stage("claimed", start.job_id)
    return await acknowledge_and_perform(self, start, metadata)

ChildMain._perform = hold
"""
)


async def test_W3_a_job_that_starts_does_not_get_to_its_entrypoint(make_app: MakeApp) -> None:
    async with scene(make_app, source=HELD_START) as at:
        line = await (await at.dispatcher.line()).ready()
        assert (await line.offer(a_job("AJ_1"))).available
        await line.assign(a_job("AJ_1"))
        visit = await at.stage.next("claimed")
        await line.terminate("AJ_1")
        await at.worker.logs("job AJ_1: the server requested its end")
        visit.order("go on")
        await line.update("AJ_1", agent.JS_SUCCESS)
        assert at.stage.starts() == {}
        assert line.updates("AJ_1") == ["JS_SUCCESS"]


HELD_REQUEST = (
    ACTOR
    + """
@app.request
async def request(request):
    await on_stage("request", request.job.id)
    return True
"""
)


async def test_W3_a_job_that_is_being_asked_about_is_not_accepted_any_more(make_app: MakeApp) -> None:
    async with scene(make_app, "--request-timeout", "50", source=HELD_REQUEST) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.ask(a_job("AJ_1"))
        visit = await at.stage.next("request")
        await line.terminate("AJ_1")
        await visit.left()  # that process is ended: the app's function still runs in it
        await at.worker.until("/v1/pool", is_free)
        assert line.answers("AJ_1") == []


async def test_W3_a_job_that_runs_is_ended_and_one_that_has_ended_stays_so(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        await line.terminate("AJ_1")
        await line.terminate("AJ_1")
        await line.update("AJ_1", agent.JS_SUCCESS)
        await line.terminate("AJ_1")
        await line.terminate("AJ_unknown")
        await line.runs(a_job("AJ_2"))
        assert line.updates("AJ_1") == ["JS_RUNNING", "JS_SUCCESS"]
        assert (await at.worker.report("AJ_1"))["reason"] == "cancelled"


# --- W4: the app's request function ---------------------------------------------------------------

ASKED = (
    ACTOR
    + """
@app.request
async def request(request):
    what = order_of(request.job)[1].metadata
    if what == "raises":
        raise RuntimeError("no such tenant")
    if what == "hangs":
        await asyncio.sleep(3600)
    if what == "nonsense":
        return "perhaps"
    if what == "untellable":
        return greenroom.Accept({"identity": 7, "shoe size": 45})
    if what == "final":
        return greenroom.Reject("never", final=True)
    return greenroom.Accept({"identity": "maitre", "name": "Maitre", "metadata": "m", "attributes": {"a": "b"}})
"""
)


async def test_W4_whatever_the_request_function_does_the_offer_is_answered(make_app: MakeApp) -> None:
    async with scene(make_app, "--request-timeout", "2", source=ASKED) as at:
        line = await (await at.dispatcher.line()).ready()
        for what in ("raises", "hangs", "nonsense", "untellable", "final"):
            answer = await line.offer(a_job(f"AJ_{what}", metadata=what))
            assert (answer.available, answer.terminate) == (False, what == "final"), what
            await at.worker.until("/v1/pool", is_free)
        answer = await line.offer(a_job("AJ_1"))
        assert answer.available
        assert (answer.participant_identity, answer.participant_name) == ("maitre", "Maitre")
        assert (answer.participant_metadata, answer.participant_attributes) == (
            "m",
            {"lk.agent.name": "actor", "a": "b"},
        )


# --- W5: the connection is lost -------------------------------------------------------------------


async def test_W5_a_job_outlives_its_connection_and_is_reported_again(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        visit = await at.stage.next("job")
        await line.drop()
        again = await at.dispatcher.line()
        await again.registers("AW_2")
        migrated = await again.expect(lambda message: message.HasField("migrate_job"), "the jobs that live")
        assert list(migrated.migrate_job.job_ids) == ["AJ_1"]
        await again.update("AJ_1", agent.JS_RUNNING)
        visit.order("leave")
        await again.update("AJ_1", agent.JS_SUCCESS)
        await at.started("AJ_1")


async def test_W5_the_end_of_a_job_that_could_not_be_told_is_told_later(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        visit = await at.stage.next("job")
        await at.dispatcher.stop()
        visit.order("leave")
        assert (await at.worker.report("AJ_1"))["outcome"] == "succeeded"
        await at.dispatcher.start()
        again = await at.dispatcher.line()
        await again.registers("AW_2")
        await again.update("AJ_1", agent.JS_SUCCESS)


async def test_W5_what_was_only_offered_or_accepted_is_void_and_nothing_stale_is_sent(make_app: MakeApp) -> None:
    async with scene(make_app, "--request-timeout", "50", source=HELD_REQUEST) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.ask(a_job("AJ_accepted"))
        (await at.stage.next("request")).order("go on")
        assert (await line.answer("AJ_accepted")).available
        await line.ask(a_job("AJ_asked"))
        await at.stage.next("request")
        await line.drop()
        again = await (await at.dispatcher.line()).ready("AW_2")
        await at.worker.until("/v1/pool", is_free)
        await again.assign(a_job("AJ_accepted"))
        await at.worker.logs("AJ_accepted is assigned, but is not started")
        kinds = {message.WhichOneof("message") for message in again.messages}
        assert kinds == {"register", "update_worker"}
        assert at.stage.starts() == {}


async def test_W5_a_server_that_is_away_for_long_finds_the_worker_again(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await at.dispatcher.stop()
        await line.closes()
        await at.worker.logs("next attempt in", count=3)
        shown = (await at.worker.get("/pressure")).body["sources"]["livekit"]
        assert shown["state"] == "disconnected"
        await at.dispatcher.start()
        await (await at.dispatcher.line()).ready()


# --- the end --------------------------------------------------------------------------------------


async def test_a_drain_is_told_and_the_connection_kept_until_the_last_job_has_ended(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        visit = await at.stage.next("job")
        at.worker.signal(signal.SIGTERM)
        await line.status(lambda status: status.status == agent.WS_FULL)
        assert not (await line.offer(a_job("AJ_2"))).available
        visit.order("leave")
        await line.update("AJ_1", agent.JS_SUCCESS)
        await line.closes()
        assert line.socket.close_code == 1000
        assert await at.worker.ends() == 0


async def test_a_job_that_was_accepted_before_the_drain_runs(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        assert (await line.offer(a_job("AJ_1", metadata="quick"))).available
        at.worker.signal(signal.SIGTERM)
        await line.status(lambda status: status.status == agent.WS_FULL)
        await line.assign(a_job("AJ_1", metadata="quick"))
        await line.update("AJ_1", agent.JS_SUCCESS)
        assert await at.worker.ends() == 0


async def test_jobs_that_a_drain_ends_are_reported_as_that(make_app: MakeApp) -> None:
    async with scene(make_app, "--drain-timeout", "0.2") as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        at.worker.signal(signal.SIGTERM)
        assert (await line.update("AJ_1", agent.JS_FAILED)).error.startswith("drained: ")
        await at.worker.ends()


# --- the log ---------------------------------------------------------------------------------------


async def test_W1_a_line_of_the_source_carries_its_event_and_ids(make_app: MakeApp) -> None:
    async with scene(make_app, "--log-format", "json", "--log-level", "debug") as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        await line.assign(a_job("AJ_1"))
        await line.terminate("AJ_1")
        await at.worker.logs("AJ_1: the server requested its end")
        await line.terminate("AJ_wild")
        await at.worker.logs("AJ_wild: the server requested its end")
        records = [json.loads(text) for text in at.worker.lines]
    own = [one for one in records if one["logger"] == "greenroom.livekit"]
    assert [one for one in own if "event" not in one] == []
    registered, refused, terminated, unknown = own
    assert registered["event"] == "livekit_registered"
    assert (registered["server"], registered["agent"]) == (at.dispatcher.url, "actor")
    assert (refused["event"], refused["kind"]) == ("livekit_message_refused", "assignment")
    assert (refused["job_id"], refused["phase"]) == ("AJ_1", "live")
    assert (terminated["event"], terminated["job_id"]) == ("job_terminated", "AJ_1")
    assert terminated["labels"]["room"] == a_job("AJ_1").room.name
    assert (unknown["event"], unknown["phase"], unknown["job_id"]) == ("livekit_message_refused", "unknown", "AJ_wild")

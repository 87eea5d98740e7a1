"""Jobs that crash and are started again, at a server whose API says what the test wants."""

from __future__ import annotations

from aiohttp import web
from dispatcher import KEY, SECRET, a_job
from livekit.protocol import agent, agent_dispatch, models, room
from source_scene import MakeApp, scene
from support import eventually

from greenroom.integrations.livekit.job_source.tokens import Signer, claims_of

ON_CRASH = ("--livekit-restart", "on_crash")
CRASH_ONCE, CRASH = "crash once", "crash"


class FakeRooms:
    """The API of a server with one room."""

    def __init__(self, *kinds: int, dispatches: tuple[str, ...] = ("AD_1",)) -> None:
        self.people = [models.ParticipantInfo(identity=str(kind), kind=kind) for kind in kinds]
        self.dispatches = dispatches
        self.status = 200

    def __call__(self, method: str, body: bytes) -> web.Response:
        if self.status != 200:
            return web.Response(status=self.status, text='{"code": "whatever"}')
        if method == "livekit.RoomService":
            answer = room.ListParticipantsResponse(participants=self.people).SerializeToString()
        else:
            found = [agent_dispatch.AgentDispatch(id=each) for each in self.dispatches]
            answer = agent_dispatch.ListAgentDispatchResponse(agent_dispatches=found).SerializeToString()
        return web.Response(body=answer)


CALLER, AGENT = models.ParticipantInfo.SIP, models.ParticipantInfo.AGENT


async def test_a_job_that_crashes_once_runs_again_as_the_same_participant(make_app: MakeApp) -> None:
    async with scene(make_app, *ON_CRASH) as at:
        at.dispatcher.twirp = FakeRooms(CALLER, AGENT)
        line = await (await at.dispatcher.line()).ready()
        job = a_job("AJ_1", metadata=CRASH_ONCE, dispatch_id="AD_1")
        assert (await line.offer(job)).available
        await line.assign(job)
        await line.update("AJ_1", agent.JS_FAILED)
        visit = await at.stage.next("job")
        await eventually(lambda: len(at.stage.noted("order")) == 2, "two starts")
        first, second = at.stage.noted("order")
        assert [first[:5], second[:5]] == [
            ["AJ_1", "0", at.dispatcher.url, "agent-AJ_1", "AW_1"],
            ["AJ_1", "1", at.dispatcher.url, "agent-AJ_1", "AW_1"],
        ]
        old, new = claims_of(first[5]), claims_of(second[5])
        assert {name: new[name] for name in old} == old
        assert new["iss"] == KEY
        assert Signer(KEY, SECRET).sign(new, new["nbf"] + 30, new["exp"] - new["nbf"] - 30) == second[5]
        visit.order("leave")
        assert (await at.worker.report("AJ_1~1"))["outcome"] == "succeeded"
        assert line.updates("AJ_1") == ["JS_RUNNING", "JS_FAILED"]


async def test_a_job_that_always_crashes_is_given_up(make_app: MakeApp) -> None:
    async with scene(make_app, *ON_CRASH, "--livekit-max-restarts", "2") as at:
        at.dispatcher.twirp = FakeRooms(CALLER)
        line = await (await at.dispatcher.line()).ready()
        job = a_job("AJ_1", metadata=CRASH)
        assert (await line.offer(job)).available
        await line.assign(job)
        await at.worker.logs("job AJ_1 is given up after 2 restarts")
        await at.started("AJ_1", "AJ_1~1", "AJ_1~2")


async def test_nobody_left_to_talk_with(make_app: MakeApp) -> None:
    async with scene(make_app, *ON_CRASH) as at:
        line = await (await at.dispatcher.line()).ready()
        for number, (rooms, reason) in enumerate(
            [
                (FakeRooms(AGENT), "nobody is in room"),
                (FakeRooms(CALLER, dispatches=()), "its dispatch was deleted"),
                (FakeRooms(), "nobody is in room"),
            ]
        ):
            at.dispatcher.twirp = rooms
            job = a_job(f"AJ_{number}", metadata=CRASH, dispatch_id="AD_1")
            assert (await line.offer(job)).available
            await line.assign(job)
            await at.worker.logs(f"job AJ_{number} is not started again: {reason}")
        assert sum(at.stage.starts().values()) == 3


async def test_a_room_that_is_gone_and_a_server_that_fails(make_app: MakeApp) -> None:
    async with scene(make_app, *ON_CRASH) as at:
        at.dispatcher.twirp = rooms = FakeRooms(CALLER)
        line = await (await at.dispatcher.line()).ready()
        rooms.status = 404
        await line.runs(a_job("AJ_1", metadata=CRASH))
        await at.worker.logs("job AJ_1 is not started again: room 'room' is gone")
        rooms.status = 500
        await line.runs(a_job("AJ_2", metadata=CRASH_ONCE))
        await at.worker.logs(r"job AJ_2 could not be started again \(attempt 1\): .*status 500")
        rooms.status = 200
        await at.worker.logs("job AJ_2 is started again in room room, as AJ_2~2")


async def test_a_run_ends_when_its_dispatch_is_deleted(make_app: MakeApp) -> None:
    async with scene(make_app, *ON_CRASH) as at:
        at.dispatcher.twirp = rooms = FakeRooms(CALLER)
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1", metadata=CRASH_ONCE, dispatch_id="AD_1"))
        await at.stage.next("job")
        rooms.dispatches = ()
        report = await at.worker.report("AJ_1~1")
        assert (report["outcome"], report["detail"]) == ("cancelled", "its dispatch was deleted at the LiveKit server")


async def test_by_default_nothing_is_started_again(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1", metadata=CRASH))
        await line.update("AJ_1", agent.JS_FAILED)
        await line.runs(a_job("AJ_2"))
        await at.started("AJ_1", "AJ_2")


async def test_a_job_that_was_dispatched_anew_says_so(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        job = a_job("AJ_1")
        job.attributes["greenroom.restarts"] = "1"
        await line.runs(job)
        await eventually(lambda: at.stage.noted("order"), "the start of the job")
        assert at.stage.noted("order")[0][1] == "1"

"""Jobs through the real port of the real command."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable

from faults.stage import HELD_WHEN_CLAIMED, PLAIN, Stage, Visit
from running_worker import RunningWorker

MakeApp = Callable[[str], str]

ECHO = """
@app.entrypoint
async def entrypoint(ctx):
    kind = ctx.job.metadata
    if kind == "bytes":
        return b"\\x00\\xff"
    if kind == "odd":
        return {"nan": float("nan"), "text": "NaN \\ud800 \\U0001f600 \\\\ud800", "deep": [float("-inf")]}
    if kind == "raise":
        raise RuntimeError("no such caller")
    return {"pid": os.getpid(), "metadata": kind}
"""

SLOW_TO_WARM = f"""
@app.prewarm
async def prewarm(proc):
    await on_stage("prewarm")
{PLAIN}"""


async def test_a_session_from_post_to_report(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(ECHO), "--num-idle-processes", "2") as worker:
        pool = (await worker.get("/v1/pool")).body
        idle = [process["pid"] for process in pool["processes"] if process["state"] == "idle"]
        metadata = {"caller": "+1555", "text": "\u00e4\U0001f600", "big": 2**70, "nested": [[None, 1.5]]}
        job = await worker.start(metadata, id="call:1")
        assert (job["id"], job["launch_type"]) == ("call:1", "warm")
        assert job["pid"] in idle
        assert job["start_ms"] > 0
        answer = await worker.get("/v1/jobs/call:1?wait=20")
        assert answer.body["state"] == "ended"
        report = answer.body["report"]
        assert (report["outcome"], report["reason"], report["exit_code"]) == ("succeeded", "completed", 0)
        assert report["result"] == {"pid": job["pid"], "metadata": metadata}
        assert report["result_encoding"] == "json"
        listed = (await worker.get("/v1/jobs")).body["jobs"]
        assert [(one["id"], one["state"], one["reason"]) for one in listed] == [("call:1", "ended", "completed")]


async def test_who_asks_for_a_session_is_told_what_the_app_answered(make_app: MakeApp) -> None:
    answering = (
        ECHO
        + """
@app.request
async def request(request):
    if request.job.metadata == "plain":
        return True
    return greenroom.Accept({"room": "blue", "odd": [float("nan"), "\\ud800"], "big": 2**70})
"""
    )
    async with RunningWorker(make_app(answering), "--num-idle-processes", "1") as worker:
        assert (await worker.start("plain"))["answer"] == {}
        job = await worker.start(timeout=20)
        assert job["answer"] == {"room": "blue", "odd": [None, "\ufffd"], "big": 2**70}
        assert "answer" not in (await worker.get(f"/v1/jobs/{job['id']}")).body


async def test_results_are_json_whatever_the_app_returned(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(ECHO), "--num-idle-processes", "1") as worker:
        odd = await worker.report((await worker.start("odd"))["id"])
        assert odd["result"] == {"nan": None, "text": "NaN \ufffd \U0001f600 \\ud800", "deep": [None]}
        raw = await worker.report((await worker.start("bytes"))["id"])
        assert raw["result_encoding"] == "base64"
        assert base64.b64decode(raw["result"]) == b"\x00\xff"
        failed = await worker.report((await worker.start("raise"))["id"])
        assert (failed["outcome"], failed["result"], failed["result_encoding"]) == ("failed", None, None)
        assert failed["error"]["message"] == "no such caller"
        assert "entrypoint" in failed["error"]["traceback"]


async def test_long_poll_and_cancel(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "1") as worker:
        job = await worker.start("stay")
        await stage.next("job")
        running = await worker.get(f"/v1/jobs/{job['id']}?wait=0.05")
        assert (running.body["state"], running.body["report"]) == ("running", None)
        waiting = await worker.report_to_come(job["id"])
        cancelled = await worker.ask("DELETE", f"/v1/jobs/{job['id']}?reason=the+caller+hung+up")
        assert cancelled.status == 202
        report = await waiting
        assert (report["outcome"], report["reason"]) == ("cancelled", "cancelled")
        assert "the caller hung up" in report["detail"]
        again = await worker.ask("DELETE", f"/v1/jobs/{job['id']}")
        assert (again.status, again.body["state"]) == (200, "ended")


async def test_a_client_that_goes_while_its_offer_waits_leaves_no_job(make_app: MakeApp) -> None:
    options = ["--num-idle-processes", "0", "--offer-timeout", "20"]
    async with Stage(make_app) as stage, RunningWorker(stage.app(SLOW_TO_WARM), *options) as worker:
        visit = await _post_and_go(await worker.port(), stage, "prewarm")
        await worker.until("/v1/pool", lambda answer: answer.body["jobs"] == 0)
        visit.order("warm")
        await worker.until("/v1/pool", lambda answer: answer.body["warming"] == 0)
        assert (await worker.get("/v1/jobs")).body["jobs"] == []
        assert stage.starts() == {}


async def test_a_client_that_goes_while_its_job_starts_leaves_no_job(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        RunningWorker(stage.app(HELD_WHEN_CLAIMED), "--num-idle-processes", "1") as worker,
    ):
        visit = await _post_and_go(await worker.port(), stage, "claimed")
        # The worker sees the hang-up in its own time; a job that starts before is cancelled all the same.
        visit.order("go on")
        report = await worker.report("gone")
        assert (report["outcome"], report["reason"]) == ("cancelled", "cancelled")
        assert "client" in report["detail"]


async def _post_and_go(port: int, stage: Stage, phase: str) -> Visit:
    """Ask for a job, wait until it has come to a phase, and hang up."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"id": "gone", "metadata": "stay"})
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(f"{head}\r\n\r\n{body}".encode())
    visit = await stage.next(phase)
    writer.close()
    await writer.wait_closed()
    return visit


async def test_an_id_is_taken_once(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(SLOW_TO_WARM), "--num-idle-processes", "0") as worker:
        late = await worker.post("stay", id="call", timeout=0.05)
        assert (late.status, late.error["reason"]) == (503, "warming")
        assert int(late.headers["Retry-After"]) >= 1
        # It never started, so it can be asked for again, as Retry-After says.
        again = asyncio.create_task(worker.start("stay", id="call"))
        (await stage.next("prewarm")).order("warm")
        await again
        taken = await worker.post(id="call")
        assert (taken.status, taken.error["type"]) == (409, "duplicate_job")
        (await stage.next("job")).order("leave")
        assert (await worker.report("call"))["outcome"] == "succeeded"
        assert (await worker.post(id="call")).status == 409
        assert stage.starts() == {"call": 1}

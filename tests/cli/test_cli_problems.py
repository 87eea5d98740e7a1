"""`greenroom problems`: what went wrong is found with its calls, in one command."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client_commands import ask
from server.running_worker import RunningWorker

from greenroom.cli.problems import problems_of, problems_text

MakeApp = Callable[[str], str]
NOW = 1_000_000.0

APP = """
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata["act"] == "raise":
        raise KeyError("menu\\n2026-01-01 rejected \\x1b[31m")
    if ctx.job.metadata["act"] == "stay":
        await asyncio.sleep(3600)
"""


async def test_a_worker_without_problems(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        await worker.report((await worker.start({"act": "return"}))["id"])
        done = await ask(worker, "problems")
        assert (done.code, done.out) == (0, "no problems\n")
        done = await ask(worker, "problems", "--json")
        assert done.json == {"worker": [], "stuck": [], "failures": [], "rejected": []}


async def test_problems_are_shown_with_their_calls(make_app: MakeApp) -> None:
    app = make_app(APP)
    path = Path(app.partition(":")[0])
    async with RunningWorker(app, "--max-jobs", "1") as worker:
        for number in range(4):
            await worker.report(
                (await worker.start({"act": "raise", "caller": f"+{number}"}, id=f"bad-{number}"))["id"]
            )
        victim = await worker.start({"act": "stay", "caller": "+7"}, id="victim")
        assert (await worker.post({"act": "stay", "caller": "+8"}, id="late")).status == 503
        os.kill(victim["pid"], signal.SIGKILL)
        await worker.report("victim")
        with path.open("a") as file:
            file.write("def broken(:\n")
        assert (await worker.ask("POST", "/v1/pool/reload", json={})).status == 409
        await worker.until("/v1/board", lambda answer: answer.body["incidents"])
        done = await ask(worker, "problems")
        assert done.code == 0
        lines = done.out.splitlines()
        heads = [line for line in lines if not line.startswith(" ")]
        assert heads == ["worker", "failures", "rejected"]  # no text of a caller makes a line of its own
        assert "\x1b" not in done.out
        assert any("reload failed: " in line for line in lines)
        assert "SyntaxError" in done.out
        assert any(line.startswith("  4x failed, raised: KeyError at app_0.py:") for line in lines)
        assert [n for n in range(4) if f"job bad-{n} " in done.out] == [1, 2, 3]
        assert any('job victim {"act":"stay","caller":"+7"}: SIGKILL from outside' in line for line in lines)
        assert any('job late {"act":"stay","caller":"+8"}: max_jobs (1) is reached' in line for line in lines)
        found = (await ask(worker, "problems", "--json")).json
        assert [(one["kind"].partition(" at ")[0], one["count"]) for one in found["failures"]] == [
            ("failed, raised: KeyError", 4),
            ("killed, signaled: SIGKILL", 1),
        ]
        assert len(found["failures"][0]["latest"]) == 4


def a_board(**changed: Any) -> dict[str, Any]:
    return {"incidents": [], "sessions": [], "reports": [], "turned_down": []} | changed


def an_end(job_id: str, at: float, **changed: Any) -> dict[str, Any]:
    known = {"id": job_id, "ended": at, "outcome": "succeeded", "reason": "completed", "cause": "succeeded, completed"}
    return known | {"detail": "", "labels": {}, "metadata": None} | changed


def test_only_what_needs_attention_is_a_problem() -> None:
    cut = {"outcome": "cancelled", "reason": "drained", "cause": "cancelled, drained"}
    lost = {"outcome": "killed", "reason": None, "cause": "lost with the worker"}
    jobs = [
        an_end("fine", NOW),
        an_end("hung-up", NOW, outcome="cancelled", reason="cancelled"),
        an_end("cut", NOW + 2, **cut),
        an_end("lost", NOW + 1, **lost),
        an_end("forgotten", NOW, **cut) | {"ended": None},
    ]
    process = {"at": NOW, "job_id": None, "process_id": "1-7", "cause": "failed, prewarm_failed", "labels": {}}
    reports = [process | {"detail": "prewarm raised"}, {"at": NOW, "job_id": "cut"}]
    incidents = [{"is_bad": False, "at": NOW}]
    found = problems_of(a_board(reports=reports, incidents=incidents), jobs)
    assert [group["kind"] for group in found["failures"]] == [
        "failed, prewarm_failed",
        "lost with the worker",
        "cancelled, drained",
    ]
    assert found["worker"] == []
    assert "process 1-7: prewarm raised" in problems_text(found, NOW)


def test_a_stuck_call_is_a_problem_with_the_time_of_its_last_beat() -> None:
    session = {"id": "call", "is_stuck": True, "beat_age": 12.3, "labels": {"room": "hall"}, "metadata": None}
    found = problems_of(a_board(sessions=[session, session | {"id": "other", "is_stuck": False}]), [])
    stuck, line = problems_text(found, NOW).splitlines()
    assert stuck == "stuck"
    assert line.endswith("job call room=hall: its event loop stands still for 12 s (greenroom jobs stack call)")

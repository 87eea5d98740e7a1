"""No session, caller or app forges a line of the worker's log, moves a terminal's cursor, or breaks the JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from cli.client_commands import ask
from running_worker import RunningWorker
from support import eventually

MakeApp = Callable[[str], str]

FORGED = "12:00:00.000 INFO    serving evil"
EVIL = f"x\n{FORGED}\r{FORGED}\x1b[2J\x1b]0;owned\x07\u2028{FORGED}\u2029\x85{FORGED}\u202e\u2066\b\x9b2J z"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f]")

APP = f"""
import logging

EVIL = {EVIL!r}

@app.request
async def request(request):
    return greenroom.Reject(EVIL + chr(0xd800)) if request.job.metadata == "reject" else True

@app.prewarm
async def prewarm(proc):
    if os.path.exists("broken"):
        raise RuntimeError(EVIL)

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "stay":
        await asyncio.Event().wait()
    if ctx.job.metadata == "exit":
        sys.exit(EVIL + chr(0xdfff))
    print(EVIL + chr(0), flush=True)
    os.write(2, b"\\xff\\x00\\x1b[2J\\x80\\n")
    logging.getLogger(EVIL).error(EVIL + chr(0xd800), extra={{EVIL + "2": EVIL, "nan": float("nan")}})
    raise type("Evil", (Exception,), {{"__qualname__": EVIL, "__module__": EVIL}})(EVIL)
"""


async def provoke(worker: RunningWorker) -> str:
    """Have all kinds of text logged. Returns the id of a job that has raised."""
    await worker.post("reject")
    await worker.start("stay", id="cancelled")
    await worker.ask("DELETE", f"/v1/jobs/cancelled?reason={quote(EVIL)}")
    await worker.report("cancelled")
    await worker.start("exit", id="exited")
    assert (await worker.report("exited"))["reason"] == "exited"
    await worker.start(EVIL, id="raised")
    assert (await worker.report("raised"))["reason"] == "raised"
    await worker.logs("job raised.* failed")
    return "raised"


def assert_is_harmless(text: str) -> None:
    assert not CONTROLS.search(text), ascii(text)
    assert not [line for line in text.splitlines() if line.startswith("12:00:00.000")], text


async def test_lines_for_people(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        await provoke(worker)
        for line in worker.lines:
            assert_is_harmless(line)
            assert re.match(r"\d\d:\d\d:\d\d\.\d\d\d (INFO|WARNING|ERROR) |    ", line), line
        assert [line for line in worker.lines if "\\x1b[2J" in line]


async def test_lines_for_programs(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP), "--log-format", "json", "--log-level", "debug") as worker:
        await provoke(worker)
        found = [json.loads(line, parse_constant=pytest.fail) for line in worker.lines]
        json.dumps(found, ensure_ascii=False).encode()  # no half of a surrogate pair
        assert {line["logger"] for line in found} <= {"greenroom", "greenroom.app", "asyncio"}
        error, raised = [line for line in found if line.get("stream") == "log"]
        assert raised["message"].startswith("the entrypoint failed\n")
        assert error["fields"]["nan"] == "NaN"
        assert error["message"].startswith(EVIL)


async def test_commands_show_such_texts_and_nothing_else(make_app: MakeApp, tmp_path: Path) -> None:
    async with RunningWorker(make_app(APP), cwd=tmp_path) as worker:
        job_id = await provoke(worker)
        commands = [["jobs", "show", job_id], ["jobs", "show", "cancelled"], ["jobs", "list"], ["top", "--once"]]
        commands += [["jobs", "cancel", job_id], ["jobs", "run", "--metadata", '"reject"'], ["jobs", "show", EVIL]]
        (tmp_path / "broken").touch()
        assert (await ask(worker, "resize", "5")).code == 0
        await worker.logs("jobs are rejected until a process becomes warm")
        commands += [["status"], ["top", "--once"], ["status", "--json"], ["top", "--json"]]
        for command in commands:
            done = await ask(worker, *command)
            assert_is_harmless(done.out + done.err)
            if "--json" in command:
                json.loads(done.out, parse_constant=pytest.fail)
        (tmp_path / "broken").unlink()


async def test_a_usage_error_shows_its_arguments_only(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        for command in (["jobs", EVIL], [EVIL], ["status", "--url", EVIL], ["start", EVIL, "--port", EVIL]):
            done = await ask(worker, *command)
            assert done.code != 0
            assert_is_harmless(done.out + done.err)


async def test_an_app_with_an_evil_name(make_app: MakeApp, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path / "[bold]a\x1b[2J\n12:00:00.000 INFO    \u202e") + b"\xff.py"
    shutil.copy(make_app(APP).removesuffix(":app"), name)
    app = f"{os.fsdecode(name)}:app"
    async with RunningWorker(app, "--log-format", "json") as worker:
        await worker.start("stay", id="job")
        assert (await worker.get("/v1/board")).status == 200
        assert (await ask(worker, "top", "--json")).code == 0
        shown = await ask(worker, "top", "--once")
        assert shown.code == 0
        assert_is_harmless(shown.out)
        assert "[bold]a\\x1b[2J 12:00" in shown.out
        for line in worker.lines:
            json.loads(line, parse_constant=pytest.fail)


async def test_all_of_stderr_is_json(make_app: MakeApp, tmp_path: Path) -> None:
    """Not only the log: warnings, and errors that nothing can catch, are printed by Python itself."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading, time, warnings\n"
        "class Evil:\n"
        "    def __del__(self): raise RuntimeError('in a finalizer')\n"
        "def act():\n"
        "    while threading.excepthook.__module__ != 'greenroom.cli.logs': time.sleep(0.01)\n"
        "    warnings.warn('a warning')\n"
        "    Evil()\n"
        "    raise RuntimeError('in a thread')\n"
        "if 'greenroom' in sys.orig_argv[1]: threading.Thread(target=act, daemon=True).start()\n"
    )
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    async with RunningWorker(make_app(APP), "--log-format", "json", env=environ) as worker:
        for text in ("a warning", "in a finalizer", "in a thread"):
            await worker.logs(text)
        await eventually(lambda: [json.loads(line) for line in worker.lines], "lines")


async def test_a_child_that_sends_half_a_surrogate_pair_breaks_no_answer(make_app: MakeApp) -> None:
    source = """
@app.entrypoint
async def entrypoint(ctx):
    greenroom.errors.clean = str  # as a child might that does not keep to the rules
    raise ValueError(chr(0xd800) + " half")
"""
    async with RunningWorker(make_app(source)) as worker:
        report = await worker.report((await worker.start())["id"])
        assert report["error"]["message"] == "\\ud800 half"
        for path in ("/v1/jobs", "/v1/board", "/pressure"):
            assert (await worker.get(path)).status == 200
        assert (await ask(worker, "top", "--once")).code == 0

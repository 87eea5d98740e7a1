"""The command line: what is understood, what is said, and with which code it exits."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest
from aiohttp import ClientSession
from commands import GREENROOM
from running_worker import RunningWorker
from support import DEADLINE

from greenroom import PoolOptions, __version__
from greenroom.settings import LogOptions, ServerOptions

MakeApp = Callable[[str], str]

TALKING = """
import logging

@app.entrypoint
async def entrypoint(ctx):
    print("printed")
    logging.getLogger("mine").warning("logged\\nin two lines")
"""


async def _run(*arguments: str, **spawn: Any) -> tuple[int, str, str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(GREENROOM, *arguments, stdout=pipe, stderr=pipe, **spawn)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_version_and_help() -> None:
    assert await _run("version") == (0, f"{__version__}\n", "")
    code, out, _ = await _run("start", "--help", env={"COLUMNS": "200", "TERM": "dumb"})
    assert code == 0
    for kind in (PoolOptions, ServerOptions, LogOptions):
        for field in dataclasses.fields(kind):
            assert f"--{field.name.replace('_', '-')}" in out
    assert "Number of idle processes that wait for jobs" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["start"], "APP"),
        (["strat"], "start"),
        (["start", "x.py", "--max-job", "1"], "--max-jobs"),
        (["start", "x.py", "--port", "http"], "--port"),
        (["start", "x.py", "--port", "70000"], "between 0 and 65535"),
        (["start", "x.py", "--max-jobs", "0"], "at least 1"),
        (["start", "x.py", "--start-method", "thread"], "zygote, spawn"),
        (["start", "x.py", "--job-timeout", "nan"], "above 0"),
        (["start", "x.py", "--host", "0.0.0.0"], "loopback"),
        (["start", "x.py", "--host", "example.com"], "loopback"),
    ],
)
async def test_a_bad_option_is_one_clear_line(arguments: list[str], says: str) -> None:
    code, out, err = await _run(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert says in err


async def test_an_app_that_does_not_load_is_told_with_its_own_traceback(make_app: MakeApp) -> None:
    async with RunningWorker(make_app("import no_such_module")) as worker:
        assert await worker.ends() == 3
        await worker.logs("did not load: ModuleNotFoundError: No module named 'no_such_module'")
        await worker.logs("import no_such_module")


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("/no/such/agent.py", "there is no file /no/such/agent.py"),
        ("no_such_module:app", "No module named 'no_such_module'"),
        ("json:app", "module 'json' has no 'app'"),
    ],
)
async def test_an_app_that_is_not_there(app: str, says: str) -> None:
    async with RunningWorker(app) as worker:
        assert await worker.ends() == 3
        await worker.logs(says)


async def test_an_app_without_an_entrypoint_needs_no_traceback(make_app: MakeApp) -> None:
    async with RunningWorker(make_app("")) as worker:
        assert await worker.ends() == 3
        await worker.logs("has no entrypoint; mark one function")
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_a_module_is_found_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("")
    (tmp_path / "agents" / "voice.py").write_text(
        "import greenroom\nagent = greenroom.App()\n@agent.entrypoint\ndef run(ctx): return 'found'\n"
    )
    async with RunningWorker("agents.voice:agent", command="dev", cwd=tmp_path) as worker:
        assert (await worker.report((await worker.start())["id"]))["result"] == "found"


async def test_a_port_in_use_is_told(make_app: MakeApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = await _run("start", make_app(TALKING), "--port", port)
    assert code == 4
    assert f"port {port}: Address already in use" in err


async def test_the_limit_on_open_files_is_raised(make_app: MakeApp) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))

    async with RunningWorker(make_app(TALKING), "--max-jobs", "1000", preexec_fn=lower) as worker:
        await worker.logs("the limit on open files is 2048, but max_jobs=1000 may need")
        await worker.url()
        assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE) == (2048, 2048)


async def test_logs_for_people(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(TALKING), "--num-idle-processes", "1") as worker:
        await worker.logs(r"serving .*app_0.py:app on http://127.0.0.1:\d+, with 1 idle processes")
        await worker.logs(r"curl http://127.0.0.1:\d+/v1/jobs .* -d '\{\"metadata\": \{\}\}'")
        await worker.start(id="call")
        await worker.logs(r"INFO    \[1-1 g1 call\] printed$")
        await worker.logs(r"WARNING \[1-1 g1 call\] logged$")
        await worker.logs(r"^    in two lines$")
        await worker.logs(r"process 1-1 pid \d+ \(job call\) succeeded: completed")


async def test_logs_for_programs(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "1", "--log-format", "json", "--log-level", "info")
    async with RunningWorker(make_app(TALKING), *options) as worker:
        job = await worker.start(id="call")
        await worker.report("call")
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
        events = [json.loads(line) for line in worker.lines]
    of_job = {event["message"]: event for event in events if event.get("job_id") == "call"}
    assert of_job["printed"]["stream"] == "stdout"
    assert of_job["logged\nin two lines"]["app_logger"] == "mine"
    for event in of_job.values():
        assert (event["job_pid"], event["process_id"], event["generation"]) == (job["pid"], "1-1", 1)
        assert event["time"].endswith("Z")
    assert {"info", "warning"} == {event["level"] for event in of_job.values()}


async def test_a_log_that_nobody_reads_holds_nothing_up(make_app: MakeApp) -> None:
    """The pipe is full after 64 KiB; the worker serves on, and ends."""
    source = """
    @app.entrypoint
    async def entrypoint(ctx):
        for _ in range(100):
            print("x" * 2000)
    """
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(GREENROOM, "start", make_app(source), "--port", "0", stderr=writing)
    os.close(writing)
    try:
        with open(reading) as log:
            async with ClientSession(await asyncio.to_thread(_url_in, log)) as session:
                for number in range(4):
                    async with session.post("/v1/jobs", json={"id": f"call-{number}"}) as answer:
                        assert answer.status == 201
                    async with session.get(f"/v1/jobs/call-{number}", params={"wait": "20"}) as answer:
                        assert (await answer.json())["report"]["outcome"] == "succeeded"
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _url_in(log: TextIO) -> str:
    return next(match[1] for line in log if (match := re.search(r"(http://\S+:\d+),", line)))

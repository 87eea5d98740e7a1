"""The API keeps to the document that it serves, whatever it is asked: schemathesis makes the requests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running_worker import RunningWorker

SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
# Streams do not end, a drain ends the worker, and the page is no API.
LEFT_OUT = ["--exclude-path", "/v1/events", "--exclude-path", "/v1/pool/drain", "--exclude-path-regex", "^/page"]
EFFORT = ["--phases", "coverage,fuzzing", "--max-examples", "20", "--checks", "all", "--request-timeout", "30"]
# A 503 is how a session is turned down: of server errors, the worker's log tells.
EFFORT += ["--exclude-checks", "not_a_server_error"]

ECHO = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""


@pytest.mark.more
async def test_every_answer_is_as_the_document_says(make_app: Callable[[str], str]) -> None:
    async with RunningWorker(make_app(ECHO), "--num-idle-processes", "2", "--rate-limit", "off") as worker:
        url = f"{await worker.url()}/openapi.json"
        command = [SCHEMATHESIS, "run", url, *LEFT_OUT, *EFFORT, "--no-color"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        assert " 22 selected" in output.decode()  # or it tested nothing
        assert not [line for line in worker.lines if "Traceback" in line or " failed" in line]
        await worker.ask("POST", "/v1/pool/resize", json={"num_idle_processes": 1, "max_idle_processes": 1})
        assert (await worker.start(timeout=30))["id"]


async def test_what_is_not_http_is_answered_and_not_logged(make_app: Callable[[str], str]) -> None:
    async with RunningWorker(make_app(ECHO), "--num-idle-processes", "0") as worker:
        for garbage in (
            b"\0" * 100,
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nX: \0\r\n\r\n",
            b"\x16\x03\x01" * 50,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", await worker.port())
            writer.write(garbage + b"\r\n\r\n")
            writer.write_eof()
            assert not (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
        assert (await worker.get("/livez")).status == 200
        assert not [line for line in worker.lines if "Traceback" in line]

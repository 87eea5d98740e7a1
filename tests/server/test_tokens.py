"""The token, from wherever it comes: blanks at its end, empty ones, and files that change while a worker runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import commands
import pytest
from running_worker import RunningWorker
from support import DEADLINE

MakeApp = Callable[[str], str]

TOKEN, SECOND = "correct-horse-battery-staple", "another-token-of-this-worker"
NOOP = """
@app.entrypoint
async def entrypoint(ctx):
    return {name: value for name, value in os.environ.items() if "GREENROOM_TOKEN" in name}
"""
ENDS = ["\r\n", " \t\n"]
BROKEN = {
    "": "is empty",
    " \n": "is empty",
    "two words of a token": "ASCII",
    "two\nlines-of-one-token": "ASCII",
    "a-token-with-a\x00in-it"[:14] + "\x01-rest-of-it": "ASCII",
    "schlüssel-mit-umlaut": "ASCII",
    "short": "at least 16",
    "short          \n": "at least 16",
}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def refused(app: str, *options: str, **environ: str) -> str:
    """The one line with which a worker does not start."""
    process = await commands.start(
        "start", app, "--port", "0", *options, stderr=asyncio.subprocess.PIPE, env={**os.environ, **environ}
    )
    async with asyncio.timeout(DEADLINE):
        _, complaint = await process.communicate()
    assert process.returncode == 2, complaint
    (line,) = complaint.decode().splitlines()
    return line


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", ["environment", "file", "flag", "token file"])
async def test_blanks_around_a_token_do_not_count(make_app: MakeApp, tmp_path: Path, place: str, end: str) -> None:
    environ, options = dict(os.environ), []
    text = f"{end}{TOKEN}{end}"
    if place == "environment":
        environ["GREENROOM_TOKEN"] = text
    elif place == "flag":
        options = ["--token", text]
    elif place == "file":
        escaped = text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")
        (tmp_path / "greenroom.toml").write_text(f'[server]\ntoken = "{escaped}"')
    else:
        (tmp_path / "token").write_bytes(text.encode())
        environ["GREENROOM_TOKEN_FILE"] = f"{tmp_path / 'token'}\n"
    options += ["--num-idle-processes", "0"]
    async with RunningWorker(make_app(NOOP), *options, env=environ, cwd=tmp_path) as worker:
        assert (await worker.ask("GET", "/v1/pool", headers=bearer(TOKEN))).status == 200
        assert (await worker.get("/v1/pool")).status == 401


@pytest.mark.parametrize(("token", "says"), BROKEN.items())
async def test_a_token_that_is_none_starts_nothing(make_app: MakeApp, tmp_path: Path, token: str, says: str) -> None:
    app, file = make_app(NOOP), tmp_path / "token"
    file.write_text(token)
    # Nor may the empty one open a worker whose file has a token.
    (tmp_path / "greenroom.toml").write_text(f"[server]\ntoken = '{TOKEN}'")
    lines = await asyncio.gather(
        refused(app, GREENROOM_TOKEN=token),
        refused(app, "--token", token),
        refused(app, "--host", "0.0.0.0", GREENROOM_TOKEN=token),
        refused(app, GREENROOM_TOKEN_FILE=str(file)),
        refused(app, "--config", str(tmp_path / "greenroom.toml"), GREENROOM_TOKEN=token),
    )
    for line in lines:
        assert says in line or "control character" in line
        assert "token" in line.lower()
        assert not token.strip() or token.strip() not in line


async def test_no_token_is_said_by_a_word(make_app: MakeApp) -> None:
    environ = {**os.environ, "GREENROOM_TOKEN": "off\n"}
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", env=environ) as worker:
        assert (await worker.get("/v1/pool")).status == 200


async def test_a_token_file_that_cannot_be_starts_nothing(make_app: MakeApp, tmp_path: Path) -> None:
    app, pipe = make_app(NOOP), tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large"
    large.write_text("x" * 100_000)
    for file, says in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "regular file"),
        (pipe, "regular file"),
        (Path("/dev/zero"), "regular file"),
        (large, "larger than"),
    ):
        line = await refused(app, "--token-file", str(file))
        assert says in line
        assert f"the token file {file}" in line
    assert "token_file is empty" in await refused(app, GREENROOM_TOKEN_FILE="")
    both = await refused(app, GREENROOM_TOKEN=TOKEN, GREENROOM_TOKEN_FILE=str(large))
    assert "GREENROOM_TOKEN; GREENROOM_TOKEN_FILE: token and token_file are both set" in both
    assert TOKEN not in both


async def test_a_token_file_is_read_again_when_it_changes(make_app: MakeApp, tmp_path: Path) -> None:
    file = _mounted(tmp_path, "first", f"{TOKEN}\n")
    environ = {**os.environ, "GREENROOM_TOKEN_FILE": str(file)}
    options = ["--host", "0.0.0.0", "--num-idle-processes", "1", "--rate-limit", "off"]
    async with RunningWorker(make_app(NOOP), *options, env=environ) as worker:
        await worker.logs("serving")
        reader, writer = await _events(await worker.port(), TOKEN)
        _mounted(tmp_path, "second", f"{SECOND}\r\n")
        await _holds(worker, SECOND, TOKEN)
        worker.signal(signal.SIGHUP)
        await worker.logs("generation 2|reloaded")
        job = (await worker.ask("POST", "/v1/jobs", json={"timeout": 20}, headers=bearer(SECOND))).body["id"]
        async with asyncio.timeout(DEADLINE):
            await reader.readuntil(b"event: JobEnded")  # a stream that was open stays open
        writer.close()
        answer = await worker.ask("GET", f"/v1/jobs/{job}?wait=20", headers=bearer(SECOND))
        assert answer.body["report"]["result"] == {}  # a job does not learn where the token is

        file.resolve().write_text(TOKEN)  # in place
        await _holds(worker, TOKEN, SECOND)
        new = tmp_path / "new"
        new.write_text(SECOND)
        new.replace(file.resolve())  # by renaming
        await _holds(worker, SECOND, TOKEN)


async def test_a_token_file_that_breaks_leaves_the_token_and_one_error(make_app: MakeApp, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    options = ["--token-file", str(file), "--num-idle-processes", "0", "--rate-limit", "off"]
    async with RunningWorker(make_app(NOOP), *options) as worker:
        await worker.logs("serving")
        file.write_text("\n")
        await worker.logs(r"ERROR .*the token file .* is empty.* goes on")
        file.write_text("two words in a token")
        await worker.logs(r"ERROR .*ASCII")
        file.unlink()
        await worker.logs(r"ERROR .*No such file")
        assert (await worker.ask("GET", "/v1/pool", headers=bearer(TOKEN))).status == 200
        assert (await worker.get("/v1/pool")).status == 401
        file.write_text(SECOND)
        await _holds(worker, SECOND, TOKEN)
        assert len([line for line in worker.lines if "ERROR" in line]) == 3
        assert not [line for line in worker.lines if TOKEN in line or SECOND in line]
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0


async def _holds(worker: RunningWorker, token: str, not_any_more: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while (await worker.ask("GET", "/v1/pool", headers=bearer(token))).status != 200:
            await asyncio.sleep(0.02)
    assert (await worker.ask("GET", "/v1/pool", headers=bearer(not_any_more))).status == 401


def _mounted(folder: Path, version: str, text: str) -> Path:
    """A secret as Kubernetes mounts it: the file is a link into ``..data``, which is a link that is swapped."""
    (folder / version).mkdir()
    (folder / version / "token").write_bytes(text.encode())
    (folder / "..new").symlink_to(version)
    (folder / "..new").replace(folder / "..data")
    link = folder / "token"
    if not link.is_symlink():
        link.symlink_to("..data/token")
    return link


async def _events(port: int, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE):
        await reader.readuntil(b"event: board")
    return reader, writer


# --- the token for readers ------------------------------------------------------------------------


async def test_a_reader_sees_all_and_changes_nothing(make_app: MakeApp) -> None:
    environment = {**os.environ, "GREENROOM_TOKEN": TOKEN, "GREENROOM_VIEW_TOKEN": SECOND}
    async with RunningWorker(make_app(NOOP), env=environment) as worker:
        job = await worker.ask("POST", "/v1/jobs", json={}, headers=bearer(TOKEN))
        assert job.status == 201
        for path in ("/v1/jobs", f"/v1/jobs/{job.body['id']}", "/v1/board", "/v1/pool", "/pressure"):
            assert (await worker.ask("GET", path, headers=bearer(SECOND))).status == 200
        assert (await worker.fetch("GET", "/metrics", headers=bearer(SECOND))).status == 200
        for method, path in WRITES:
            answer = await worker.ask(method, path.format(id=job.body["id"]), json={}, headers=bearer(SECOND))
            assert (answer.status, answer.error["type"]) == (403, "read_only"), path
        assert (await worker.get("/v1/jobs")).status == 401
        assert (await worker.ask("POST", "/v1/jobs", json={}, headers=bearer(TOKEN))).status == 201  # it still runs


WRITES = (
    ("POST", "/v1/jobs"),
    ("POST", "/v1/jobs/{id}/stack"),
    ("DELETE", "/v1/jobs/{id}"),
    ("POST", "/v1/pool/resize"),
    ("POST", "/v1/pool/reload"),
    ("POST", "/v1/pool/drain"),
    ("POST", "/v1/page/codes"),
)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"GREENROOM_VIEW_TOKEN": SECOND}, "clients may write"),
        ({"GREENROOM_TOKEN": TOKEN, "GREENROOM_VIEW_TOKEN": TOKEN}, "the same as token"),
        ({"GREENROOM_TOKEN": TOKEN, "GREENROOM_VIEW_TOKEN": "short"}, "view_token has 5 characters"),
    ],
)
async def test_a_token_for_readers_that_protects_nothing_starts_nothing(
    make_app: MakeApp, environment: dict[str, str], says: str
) -> None:
    assert says in await refused(make_app(NOOP), **environment)


async def test_all_operations_that_change_something_are_tried(make_app: MakeApp) -> None:
    environment = {**os.environ, "GREENROOM_TOKEN": TOKEN}
    async with RunningWorker(make_app(NOOP), env=environment) as worker:
        document = (await worker.ask("GET", "/openapi.json", headers=bearer(TOKEN))).body
    writes = {(method.upper(), path) for path, item in document["paths"].items() for method in item if method != "get"}
    assert writes - {("POST", "/v1/page/token")} == set(WRITES)  # that one is open: it takes a code

"""Where the commands look for a worker, what they say if there is none, and how soon their help is there."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import typer
from client_commands import ask, greenroom, nobody_listening
from faults.stage import PLAIN, Stage
from server.running_worker import RunningWorker

from greenroom.cli.main import COMMANDS

MakeApp = Callable[[str], str]

TOKEN = "a-token-of-this-length"
PLAIN_APP = """
@app.entrypoint
async def entrypoint(ctx):
    return None
"""

ASKING = [
    ["jobs", "run"],
    ["jobs", "list"],
    ["jobs", "show", "x"],
    ["jobs", "cancel", "x"],
    ["drain"],
    ["drain", "--wait"],
    ["reload"],
    ["resize", "1"],
    ["status"],
    ["problems"],
    ["top", "--once"],
]


@pytest.fixture
def nobody() -> Iterator[str]:
    with nobody_listening() as url:
        yield url


async def test_no_worker_there(nobody: str) -> None:
    answers = await asyncio.gather(*(greenroom(*arguments, "--url", nobody) for arguments in ASKING))
    for arguments, done in zip(ASKING, answers, strict=True):
        assert (done.code, done.out) == (5, ""), arguments
        assert len(done.err.splitlines()) == 1
        assert f"no worker answered at {nobody}: connection refused. " in done.err
        assert "greenroom start APP" in done.err
        assert "GREENROOM_URL" in done.err


async def test_a_name_that_is_not_known() -> None:
    done = await greenroom("status", "--url", "http://no-such-host.invalid:8700")
    assert done.code == 5
    assert "http://no-such-host.invalid:8700" in done.err


async def test_somebody_else_there() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nContent-Type: text/html\r\n\r\n<html")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        done = await greenroom("status", "--url", f"http://127.0.0.1:{port}")
    assert done.code == 5
    assert "is not a Greenroom worker (HTTP 404)" in done.err


async def test_somebody_there_who_hangs_up() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        done = await greenroom("status", "--url", f"http://127.0.0.1:{port}")
    assert done.code == 5
    assert "was lost: " in done.err


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("127.0.0.1:8700", "begin with http:// or https://"),
        ("localhost", "begin with http:// or https://"),
        ("http://", "name a host"),
        ("http://localhost:port", "Port could not be cast"),
        ("http://user@localhost", "must not have a user"),
    ],
)
async def test_a_url_that_is_none(url: str, says: str) -> None:
    done = await greenroom("status", GREENROOM_URL=url)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["jobs run", "drain", "top"])
async def test_help_names_the_variables(command: str) -> None:
    done = await greenroom(*command.split(), "--help")
    assert done.code == 0
    assert "GREENROOM_URL]" in done.out
    assert "GREENROOM_TOKEN]" in done.out


@asynccontextmanager
async def forwarding(port: int) -> AsyncIterator[str]:
    """Pass connections on to a port, as a proxy does; the value is the URL."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_tokens(make_app: MakeApp) -> None:
    worker_options = ("--num-idle-processes", "1", "--token", TOKEN)
    async with Stage(make_app) as stage, RunningWorker(stage.app(PLAIN), *worker_options) as worker:
        url = await worker.url()
        asked = [["jobs", "run"], ["drain", "--wait"], ["status"], ["top", "--once"]]
        async with forwarding(await worker.port()) as elsewhere:  # to whose port no control socket belongs
            answers = await asyncio.gather(*(greenroom(*arguments, "--url", elsewhere) for arguments in asked))
        for arguments, done in zip(asked, answers, strict=True):
            assert (done.code, done.out) == (6, ""), arguments
            assert "needs a token, and gives this command none" in done.err
        assert (await ask(worker, "status")).code == 0  # the worker gives its token to a command of its own user
        wrong = await ask(worker, "status", "--token", "a-token-that-is-wrong")
        assert wrong.code == 6
        assert "does not accept this token" in wrong.err
        broken = await ask(worker, "status", "--token", "two\nlines")
        assert broken.code == 2
        assert stage.starts() == {}
        assert (await ask(worker, "status", "--token", TOKEN)).code == 0
        assert (await greenroom("jobs", "run", "--wait", GREENROOM_URL=f"{url}/", GREENROOM_TOKEN=TOKEN)).code == 0


async def test_a_token_from_a_file_or_with_blanks_around_it(make_app: MakeApp, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\r\n")
    async with RunningWorker(make_app(PLAIN_APP), "--num-idle-processes", "3", "--token", TOKEN) as worker:
        url = await worker.url()
        await worker.logs("serving")
        around = {"GREENROOM_URL": f"{url}\n"}
        right = await asyncio.gather(
            greenroom("status", **around, GREENROOM_TOKEN=f"{TOKEN}\n"),
            greenroom("status", **around, GREENROOM_TOKEN_FILE=f"{file}\n"),
            ask(worker, "jobs", "run", "--token-file", str(file)),
            ask(worker, "top", "--once", "--token-file", str(file)),
        )
        assert [done.code for done in right] == [0] * 4, right
        blank, off = await asyncio.gather(
            *(greenroom("status", **around, GREENROOM_TOKEN=empty) for empty in (" \n", "off"))
        )
        assert blank.code == 0  # as without the variable: the worker is asked for its token
        assert (off.code, "needs a token" in off.err) == (6, True)


async def test_a_token_that_cannot_be_is_sent_to_nobody(tmp_path: Path, nobody: str) -> None:
    cases: list[tuple[list[str], str]] = [
        (["--token-file", str(tmp_path / "none"), "--token", TOKEN], "both set"),
        (["--token-file", str(tmp_path / "none")], "No such file"),
        (["--token-file", str(tmp_path)], "regular file"),
        (["--token", "two words in a token"], "ASCII"),
        (["--token", "schlüssel-zum-worker"], "ASCII"),
    ]
    for number, text in enumerate(["\n", "zwölf-und-einer\n", "two\nlines"]):
        file = tmp_path / str(number)
        file.write_text(text)
        cases.append((["--token-file", str(file)], f"the token file {file}"))
    answers = await asyncio.gather(*(greenroom("status", "--url", nobody, *arguments) for arguments, _ in cases))
    for (arguments, says), done in zip(cases, answers, strict=True):
        assert (done.code, done.out) == (2, ""), arguments
        assert says in done.err


@pytest.mark.parametrize("text", ["http://127.0.0.1:1/a b", "http://127.0.0.1:1/a\tb", "http://local\nhost:1"])
async def test_a_url_holds_no_blanks(text: str) -> None:
    done = await greenroom("status", "--url", text)
    assert (done.code, done.out) == (2, "")
    assert "must not contain blanks" in done.err


async def test_a_worker_does_not_mind_the_variable() -> None:
    done = await greenroom("config", "--json", GREENROOM_URL="http://127.0.0.1:1")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_is_found_by_its_name_as_its_module_registers_it(module: str) -> None:
    cli = typer.Typer()
    importlib.import_module(f"greenroom.cli.{module}").register(cli)
    registered = [command.name or command.callback.__name__ for command in cli.registered_commands if command.callback]
    assert [*registered, *(group.name for group in cli.registered_groups)] == list(COMMANDS[module])


def test_help_does_not_load_what_only_some_commands_need() -> None:
    code = "import sys, greenroom.cli.main; print({'aiohttp', 'rich', 'prometheus_client'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

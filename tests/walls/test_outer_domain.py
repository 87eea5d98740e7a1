"""The outer domain of a pool: a thread of the supervisor, what it starts, and what each of them can connect to."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import DEADLINE, wait_for_file
from walled import NOBODY, walled

from greenroom.pool.shell.outer_domain import OuterDomain
from greenroom.system import abstract_scope

LISTEN = (
    "import socket, sys; sock = socket.socket(socket.AF_UNIX); sock.bind(chr(0) + sys.argv[1]); sock.listen(); "
    "print('listens', flush=True); sys.stdin.read()"
)
CONNECT = (
    "import socket, sys\ntry: socket.socket(socket.AF_UNIX).connect(chr(0) + sys.argv[1])\n"
    "except PermissionError: print('refused')\nelse: print('connected')"
)


NO_SCOPES = "Landlock has no scopes before Linux 6.12"


@contextmanager
def domain_of(option: str) -> Iterator[OuterDomain]:
    domain = OuterDomain(option)
    domain.enter()
    try:
        yield domain
    finally:
        domain.close()


def started(program: str, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", "-c", program, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer_of(process: subprocess.Popen[str]) -> str:
    return process.communicate()[0].strip()


def test_the_thread_in_the_domain_is_confined_and_no_other() -> None:
    before = has_no_new_privileges(threading.get_native_id())
    with domain_of("auto") as domain:
        assert domain.problem == ""
        with pytest.raises(PermissionError):
            domain.run(abstract_scope.connect, domain.outside)
        abstract_scope.connect(domain.outside)
        assert has_no_new_privileges(domain.run(threading.get_native_id))
        assert has_no_new_privileges(threading.get_native_id()) == before


def has_no_new_privileges(thread: int) -> bool:
    return "NoNewPrivs:\t1" in Path(f"/proc/self/task/{thread}/status").read_text()


def test_all_that_the_thread_starts_is_in_one_domain() -> None:
    """Whenever it was started; and what another pool has started is in another domain."""
    name = f"greenroom-test/{secrets.token_hex(8)}"
    with domain_of("auto") as domain, domain_of("auto") as other, domain.run(started, LISTEN, name) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listens\n"
        assert answer_of(domain.run(started, CONNECT, name)) == "connected"
        assert answer_of(other.run(started, CONNECT, name)) == "refused"
        assert answer_of(started(CONNECT, name)) == "connected"  # of no domain
        listener.communicate()


def test_a_socket_of_the_domain_is_open_to_it() -> None:
    name = f"greenroom-test/{secrets.token_hex(8)}"
    domain = OuterDomain("auto")
    with domain.stream_socket() as sock:  # the first call enters the domain
        sock.bind(f"\0{name}")
        sock.listen()
        assert answer_of(domain.run(started, CONNECT, name)) == "connected"
    domain.close()


def test_after_the_end_nothing_is_started_outside_of_the_domain() -> None:
    with domain_of("auto") as domain:
        pass
    with pytest.raises(RuntimeError):
        domain.run(threading.get_ident)


@pytest.mark.parametrize(
    ("option", "limit", "problem"),
    [("off", "9", ""), ("auto", "5", NO_SCOPES), ("require", "0", NO_SCOPES)],
)
def test_without_a_domain_there_is_no_thread(
    option: str, limit: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDLOCK_ABI_LIMIT", limit)
    with domain_of(option) as domain:
        assert domain.problem == problem
        assert bool(domain.outside) == (option != "off")
        assert domain.run(threading.get_ident) == threading.get_ident()
        domain.stream_socket().close()


# --- sessions -------------------------------------------------------------------------------------

SERVED = """
import asyncio
import os

from greenroom import App

app = App()

@app.service
def model():
    pid = os.getpid()
    return lambda: pid

@app.entrypoint
async def entrypoint(ctx):
    first = await ctx.service("model", timeout=60)()
    with open("called", "w") as file:
        file.write("yes")
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    return [first, await ctx.service("model", timeout=60)()]
"""


@pytest.mark.more
async def test_a_session_of_a_lost_zygote_calls_the_services_of_the_next_one(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(SERVED)
    async with walled(NOBODY, "--walls", "require", app=app, has_victim=False) as worker:
        job = await worker.start({})
        await wait_for_file(worker.folder / "called")
        lost = (await worker.ask("GET", "/v1/pool")).body["zygote_pid"]
        os.kill(lost, signal.SIGKILL)
        async with asyncio.timeout(DEADLINE):
            while (await worker.ask("GET", "/v1/pool")).body["zygote_pid"] in (lost, None):
                await asyncio.sleep(0.01)
        (worker.folder / "go").touch()
        report = (await worker.ask("GET", f"/v1/jobs/{job['id']}?wait=60")).body["report"]
        assert report["reason"] == "completed", report
        first, second = report["result"]
        assert first != second
        pool = (await worker.ask("GET", "/v1/pool")).body
        assert pool["walls"] == ["memory", "signals", "sockets", "limits", "supervisor"]


OPEN = """
import socket

from greenroom import App

app = App()

@app.entrypoint
async def entrypoint(ctx):
    own = "\\0greenroom-test/" + ctx.job.id
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as mine:
        listener.bind(own)
        listener.listen()
        mine.connect(own)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(ctx.job.metadata)
        return sock.recv(9).decode()
"""


@pytest.mark.more
@pytest.mark.parametrize("method", ["zygote", "spawn"])
async def test_sockets_with_a_path_and_own_abstract_ones_stay_open(method: str, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(OPEN)
    options = ("--walls", "require", "--start-method", method)
    async with walled(NOBODY, *options, app=app, has_victim=False) as worker:
        path = worker.folder / "database"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            path.chmod(0o666)
            listener.settimeout(DEADLINE)
            running = asyncio.create_task(worker.run(str(path)))
            sock, _ = await asyncio.to_thread(listener.accept)
            with sock:
                sock.send(b"a row")
                report = await running
        assert report["result"] == "a row", report

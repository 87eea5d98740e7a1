"""What the service manager is told, on a real socket by the real command; and what it is told when that hangs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faults.stage import PLAIN, Stage
from running_worker import RunningWorker
from support import DEADLINE, eventually, wait_for_file

from greenroom.system import sd_notify

MakeApp = Callable[[str], str]

HELD_LOADING = f"""
@app.preload
def preload():
    block_on_stage("preload")
{PLAIN}"""

REPORTING = """
@app.entrypoint
async def entrypoint(ctx):
    return {name: os.environ.get(name) for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")}
"""


class Manager:
    """Stands where systemd does: the socket, and what came through it."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._socket = sock
        self._address = address
        self.told: list[str] = []

    def environment(self, **more: str) -> dict[str, Any]:
        return {"env": {**os.environ, "NOTIFY_SOCKET": self._address, **more}}

    async def hears(self, line: str) -> list[str]:
        """Wait for a message with this line; returns all of its lines."""
        async with asyncio.timeout(DEADLINE):
            while True:
                message = await self.next()
                if line in message:
                    return message

    async def next(self) -> list[str]:
        message = (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode().split("\n")
        self.told += message
        return message

    def take_what_is_there(self) -> int:
        """How many messages had come and were not taken yet."""
        count = 0
        while True:
            try:
                self._socket.recv(4096)
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture(params=["path", "abstract"])
def any_manager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    yield from _manager("@" if request.param == "abstract" else f"{tmp_path_factory.mktemp('n')}/")


@pytest.fixture
def manager() -> Iterator[Manager]:
    yield from _manager("@")


def _manager(prefix: str) -> Iterator[Manager]:
    address = f"{prefix}greenroom-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{address[1:]}" if prefix == "@" else address)
        sock.setblocking(False)
        yield Manager(sock, address)


async def test_every_phase_is_told(make_app: MakeApp, any_manager: Manager) -> None:
    manager = any_manager
    async with Stage(make_app) as stage:
        app = stage.app(HELD_LOADING)
        async with RunningWorker(app, "--num-idle-processes", "1", **manager.environment()) as worker:
            (loading,) = await manager.hears(f"STATUS=loading {app}")
            visit = await stage.next("preload")
            assert manager.told == [loading], "it must not be ready before the app has loaded"
            visit.order("load")
            _, status = await manager.hears("READY=1")
            assert await worker.url() in status
            await worker.start("stay")
            job = await stage.next("job")
            worker.signal(signal.SIGTERM)
            await manager.hears("STOPPING=1")
            await manager.hears("STATUS=draining: 1 jobs may go on for 60 s")
            job.order("leave")
            assert await worker.ends() == 0
    assert "WATCHDOG=1" not in manager.told, "nobody has asked for that"


async def test_the_name_of_an_app_is_one_status(make_app: MakeApp, manager: Manager, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path / "a\nSTOPPING=1\n") + b"\xff.py"
    shutil.copy(make_app(PLAIN).removesuffix(":app"), name)
    async with RunningWorker(f"{os.fsdecode(name)}:app", **manager.environment()):
        (loading,) = await manager.next()
        assert loading.endswith("a STOPPING=1 \\udcff.py:app")
        _, status = await manager.hears("READY=1")
        assert status.startswith("STATUS=serving ")


async def test_a_reload_is_told_with_its_time(make_app: MakeApp, manager: Manager) -> None:
    """As ``Type=notify-reload`` wants it: by the time the manager knows which of its requests is answered."""
    async with Stage(make_app) as stage:
        app = stage.app(HELD_LOADING)
        async with RunningWorker(app, "--num-idle-processes", "1", **manager.environment()) as worker:
            (await stage.next("preload")).order("load")
            await manager.hears("READY=1")
            asked = time.monotonic_ns() // 1000
            worker.signal(signal.SIGHUP)
            lines = dict(line.split("=", 1) for line in await manager.hears("RELOADING=1"))
            assert asked <= int(lines["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            visit = await stage.next("preload")
            assert manager.take_what_is_there() == 0
            visit.order("load")
            await manager.hears("READY=1")

            # A reload that gives way to a drain is no return to readiness.
            worker.signal(signal.SIGHUP)
            await stage.next("preload")
            await manager.hears("RELOADING=1")
            worker.signal(signal.SIGTERM)
            await manager.hears("STOPPING=1")
            manager.told.clear()
            assert await worker.ends() == 0
            while "STATUS=draining: 0 jobs may go on for 60 s" not in manager.told:
                await manager.next()
            assert "READY=1" not in manager.told


async def test_a_failed_reload_is_ready_again(make_app: MakeApp, manager: Manager) -> None:
    app = make_app(PLAIN.replace("note", "print"))
    async with RunningWorker(app, "--num-idle-processes", "1", **manager.environment()) as worker:
        await manager.hears("READY=1")
        Path(app.partition(":")[0]).write_text("import no_such_module")
        worker.signal(signal.SIGHUP)
        await manager.hears("RELOADING=1")
        await manager.hears("READY=1")
        await worker.logs("the reload failed")
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0


async def test_what_a_job_starts_cannot_speak_for_the_worker(make_app: MakeApp, manager: Manager) -> None:
    environment = manager.environment(WATCHDOG_USEC="60000000")
    async with RunningWorker(make_app(REPORTING), "--num-idle-processes", "1", **environment) as worker:
        job = await worker.start()
        report = await worker.report(job["id"])
        assert report["result"] == {"NOTIFY_SOCKET": None, "WATCHDOG_USEC": None, "WATCHDOG_PID": None}


async def test_a_worker_that_hangs_is_silent(make_app: MakeApp, manager: Manager) -> None:
    """Stopped, it gives no sign of life; continued, it does; and ended as systemd would, it leaves its stacks."""
    environment = manager.environment(WATCHDOG_USEC="100000")
    async with RunningWorker(make_app(PLAIN), "--num-idle-processes", "0", **environment) as worker:
        await manager.hears("READY=1")
        await manager.hears("WATCHDOG=1")
        async with _stopped(worker.pid):
            manager.take_what_is_there()
            with pytest.raises(TimeoutError):
                # Ten times the interval: nothing that could come by then does.
                async with asyncio.timeout(1.0):
                    await manager.next()
        for _ in range(3):
            await manager.hears("WATCHDOG=1")
        worker.signal(signal.SIGABRT)
        await worker.logs("Fatal Python error: Aborted")
        await worker.logs(r"in run_until_complete")


@asynccontextmanager
async def _stopped(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        await eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_an_unknown_or_dead_socket_does_not_stop_the_worker(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(PLAIN.replace("note", "print"))
    for address, says in (("vsock:2:1", "vsock:2:1"), (str(tmp_path / "nobody"), "could not be sent")):
        environment = {"env": {**os.environ, "NOTIFY_SOCKET": address}}
        async with RunningWorker(app, "--num-idle-processes", "1", **environment) as worker:
            await worker.logs(says)
            assert (await worker.report((await worker.start())["id"]))["outcome"] == "succeeded"
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0


def test_the_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for pid, seconds in (("1", None), (str(os.getpid()), 2.5), ("", 2.5)):
        monkeypatch.setenv("NOTIFY_SOCKET", "@nobody")
        monkeypatch.setenv("WATCHDOG_USEC", "2500000")
        monkeypatch.setenv("WATCHDOG_PID", pid)
        taken = sd_notify.take()
        assert taken.watchdog == seconds
        assert taken.channel is not None
        taken.channel.close()
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
    assert sd_notify.take() == (None, None)


async def test_a_signal_before_the_event_loop_runs(tmp_path: Path) -> None:
    """While the worker is still importing, SIGHUP does nothing and SIGTERM ends it in order."""
    there = tmp_path / "there"
    script = f"""
import pathlib, signal, sys, time
sys.argv = ["greenroom", "start", "no.py"]
from greenroom.cli import early_signals
early_signals.install()
signal.raise_signal(signal.SIGHUP)
pathlib.Path({str(there)!r}).write_text("there")
while True:
    time.sleep(0.01)
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    await wait_for_file(there)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE):
        assert await process.wait() == 0

"""`greenroom top` in a real terminal, beside a real worker, from which sessions are taken by force."""

from __future__ import annotations

import re
import signal
import socket
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from client_commands import TELLING, ask, greenroom
from commands import GREENROOM
from faults.stage import Stage
from server.running_worker import RunningWorker
from support import kill
from terminal import Terminal

MakeApp = Callable[[str], str]

LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"
SHOW_CURSOR = b"\x1b[?25h"
DOWN, UP = "\x1b[B", "\x1b[A"


@asynccontextmanager
async def watching(make_app: MakeApp, *options: str) -> AsyncIterator[tuple[RunningWorker, Stage, Terminal]]:
    async with (
        Stage(make_app) as stage,
        RunningWorker(stage.app(TELLING), *options) as worker,
        Terminal(GREENROOM, "top", "--url", await worker.url()) as terminal,
    ):
        await terminal.shows("arrows select a session")
        yield worker, stage, terminal


def assert_as_it_was(terminal: Terminal) -> None:
    assert terminal.mode() == terminal.before
    assert LEAVE_ALTERNATE_SCREEN in terminal.raw
    assert SHOW_CURSOR in terminal.raw


async def test_a_session_starts_and_is_killed_and_the_screen_tells_why(make_app: MakeApp) -> None:
    async with watching(make_app, "--num-idle-processes", "2") as (worker, stage, terminal):
        await terminal.shows("^Greenroom  ready ")
        await terminal.shows("generation 1 +zygote [0-9]+ +jobs 0/100 +idle 2/2")
        await worker.start("stay", id="call-1")
        pid = (await stage.next("job")).pid
        await terminal.shows(rf"^call-1 +http +running +[0-9.]+ s +{pid}")
        await terminal.shows("jobs 1/100")
        kill(pid)
        await terminal.shows(rf"^[0-9:]+ +job call-1 \(pid {pid}\) +killed, signaled +SIGKILL")
        await terminal.shows("^call-1 +http +killed, signaled")
        await terminal.shows("jobs 0/100 +idle 2/2")
        terminal.press("q")
        assert await terminal.ends() == 0
        assert_as_it_was(terminal)


async def test_an_idle_process_and_the_zygote_are_killed(make_app: MakeApp) -> None:
    async with watching(make_app, "--num-idle-processes", "1") as (worker, _, terminal):
        pool = (await worker.get("/v1/pool")).body
        idle, zygote = pool["processes"][0], pool["zygote_pid"]
        kill(idle["pid"])
        await terminal.shows(rf"process {idle['id']} \(pid {idle['pid']}\) +killed, signaled")
        # Not before the next one is idle: a fork that is lost with its zygote would be made up for by a second.
        await worker.until("/v1/pool", lambda answer: [p for p in answer.body["processes"] if p["state"] == "idle"])
        kill(zygote)
        await terminal.shows("zygote lost")
        await terminal.shows(rf"zygote (?!{zygote}\b)[0-9]+ +jobs 0/100 +idle 1/1")


async def test_what_is_turned_down_is_counted_by_reason(make_app: MakeApp) -> None:
    async with watching(make_app, "--max-jobs", "1") as (worker, stage, terminal):
        await terminal.shows("no rejections in the last minute")
        await worker.start("stay")
        await stage.next("job")
        await terminal.shows("not ready: full")
        for _ in range(3):
            assert (await worker.post()).status == 503
        await terminal.shows("rejected in the last minute: full 3")
        await terminal.shows(r"start p50 [0-9.]+ ms, p99 [0-9.]+ ms \(1 starts\)")


async def test_a_selected_session_is_cancelled_after_a_question(make_app: MakeApp) -> None:
    async with watching(make_app) as (worker, stage, terminal):
        for number in range(3):
            await worker.start("stay", id=f"call-{number}")
            await stage.next("job")
        await terminal.shows("sessions 3")
        terminal.press("c")
        await terminal.shows("no session is selected")
        terminal.press(DOWN + DOWN + DOWN + UP + "c")
        await terminal.shows("cancel job call-1\\? y/n")
        terminal.press("n")
        await terminal.shows("arrows select")
        terminal.press("c")
        await terminal.shows("cancel job call-1\\? y/n")
        terminal.press("y")
        await terminal.shows("job call-1 is being cancelled")
        await terminal.shows("^call-1 +http +cancelled, cancelled")
        await terminal.shows("sessions 2 ")
        assert (await worker.report("call-1"))["detail"] == "cancelled in greenroom top"


async def test_it_fits_a_terminal_that_is_resized(make_app: MakeApp) -> None:
    async with watching(make_app) as (worker, stage, terminal):
        await worker.start("stay", id="call-1")
        pid = (await stage.next("job")).pid
        await terminal.shows("^SESSION +SOURCE +STATE +AGE +PID +MIB +START MS$")
        terminal.resize(44, 10)
        await terminal.shows(rf"^SESSION +STATE +PID$\ncall-1 +running +{pid}$")
        terminal.resize(140, 50)
        await terminal.shows("^SESSION +SOURCE +STATE +AGE +PID +MIB +START MS$")
        assert all(len(line) <= 140 for line in terminal.text.splitlines())


async def test_it_connects_again_when_the_worker_restarts(make_app: MakeApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    async with Stage(make_app) as stage:
        app = stage.app(TELLING)
        async with RunningWorker(app, "--port", port) as worker:
            await worker.start("stay", id="before")
            await stage.next("job")
            terminal = Terminal(GREENROOM, "top", "--url", await worker.url())
            async with terminal:
                await terminal.shows("^before .*running")
                worker.signal(signal.SIGKILL)
                await terminal.shows("no connection, trying again; the figures are old")
                await terminal.shows("^before .*running")
                async with RunningWorker(app, "--port", port) as second:
                    await second.start("stay", id="after")
                    await terminal.shows("^after .*running")
                    await terminal.shows_not("before|no connection")
                    terminal.press("q")
                    assert await terminal.ends() == 0


async def test_signals_leave_the_terminal_as_it_was(make_app: MakeApp) -> None:
    async with RunningWorker(make_app("@app.entrypoint\nasync def entrypoint(ctx): ...")) as worker:
        async with Terminal(GREENROOM, "top", "--url", await worker.url()) as terminal:
            await terminal.shows("arrows select")
            assert terminal.mode()[3] != terminal.before[3]  # no echo, no waiting for lines
            terminal.press("\x1a")  # Ctrl-Z does nothing
            terminal.press("\x03")
            assert await terminal.ends() == 130
            assert_as_it_was(terminal)
        async with Terminal(GREENROOM, "top", "--url", await worker.url()) as terminal:
            await terminal.shows("arrows select")
            terminal.signal(signal.SIGTERM)
            assert await terminal.ends() == 128 + signal.SIGTERM
            assert_as_it_was(terminal)


async def test_one_picture(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(TELLING), "--num-idle-processes", "1") as worker:
        for number in range(40):
            await worker.start("stay", id=f"call-{number}", timeout=20)
        await worker.start("raise", id="bad", timeout=20)
        await worker.report("bad")
        once = await ask(worker, "top", "--once")
        assert once.code == 0
        assert "\x1b" not in once.out
        assert "sessions 40" in once.out
        assert all(re.search(f"^call-{number} .*running", once.out, re.MULTILINE) for number in range(40))
        assert re.search(r"job bad \(pid \d+\) +failed, raised", once.out)
        picture = (await ask(worker, "top", "--json")).json
        assert (picture["ready"], picture["capacity"], picture["states"]["running"]) == (True, 100, 40)
        assert len(picture["sessions"]) == 40
        assert picture["start_ms"]["count"] == 41
        assert picture["troubles"][0]["reason"] == "raised"
        piped = await ask(worker, "top")
        assert piped.code == 2
        assert "--once" in piped.err


async def test_a_terminal_that_does_not_know_its_size(make_app: MakeApp) -> None:
    async with watching(make_app) as (_, _, terminal):
        termios.tcsetwinsize(terminal.fd, (0, 0))
        await terminal.shows("arrows select")
        terminal.press("q")
        assert await terminal.ends() == 0


async def test_a_worker_that_is_not_there_does_not_touch_the_terminal() -> None:
    done = await greenroom("top", "--json", "--url", "http://127.0.0.1:9")
    assert done.code == 5

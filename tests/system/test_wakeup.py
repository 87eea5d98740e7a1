"""5,000 signals in one turn of an event loop, whose wake-up socket holds some 300: nobody warns, and nobody hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support import eventually

from greenroom import ProcessPool
from greenroom.system.wakeup import harden_loop

MakeApp = Callable[[str], str]

WARNING = "signal wakeup fd"


def run_program(source: str) -> str:
    """Run a program to its end; returns all that it printed."""
    command = [sys.executable, "-c", textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


HANDLER = """
import asyncio, os, signal
from greenroom.system import wakeup

async def main():
    loop, seen = asyncio.get_running_loop(), asyncio.Event()
    {before}
    loop.add_signal_handler(signal.SIGCHLD, seen.set)
    {after}
    for _ in range(5000):
        os.kill(os.getpid(), signal.SIGCHLD)
    await seen.wait()
    print("seen")

{program}
asyncio.run(main())
"""


def test_without_hardening_a_full_socket_is_warned_of() -> None:
    """What is guarded against: if this fails, Python has changed, and the module may go."""
    assert WARNING in run_program(HANDLER.format(before="", after="", program=""))


@pytest.mark.parametrize(
    "places",
    [
        {"before": "wakeup.harden_loop(loop)", "after": "", "program": ""},
        {"before": "", "after": "wakeup.harden_loop(loop)", "program": ""},
        {"before": "wakeup.harden_loop(loop); wakeup.harden_loop(loop)", "after": "", "program": ""},
        {"before": "", "after": "", "program": "wakeup.harden_program()"},
    ],
    ids=["before the handler", "after the handler", "twice", "the whole program"],
)
def test_a_hardened_loop_loses_no_signal_and_warns_of_nothing(places: dict[str, str]) -> None:
    assert run_program(HANDLER.format(**places)) == "seen\n"


def test_who_asks_for_the_warning_gets_it() -> None:
    source = """
    import os, signal, socket
    from greenroom.system import wakeup
    wakeup.harden_program()
    signal.signal(signal.SIGCHLD, lambda *_: None)
    near, far = socket.socketpair()
    near.setblocking(False)
    signal.set_wakeup_fd(near.fileno(), warn_on_full_buffer=True)
    for _ in range(5000):
        os.kill(os.getpid(), signal.SIGCHLD)
    """
    assert WARNING in run_program(source)


def test_the_wakeup_fd_is_never_unset() -> None:
    """A signal that came while it is would be lost. The names are asyncio's own: here it shows if they change."""
    source = """
    import asyncio, signal
    from greenroom.system import wakeup

    async def main():
        loop = asyncio.get_running_loop()
        assert {"_csock", "_signal_handlers"} <= vars(loop).keys()
        loop.add_signal_handler(signal.SIGTERM, print)
        calls, set_wakeup_fd = [], signal.set_wakeup_fd
        signal.set_wakeup_fd = lambda fd, **options: calls.append(fd) or set_wakeup_fd(fd, **options)
        wakeup.harden_loop(loop)
        loop.add_signal_handler(signal.SIGHUP, print)
        assert len(calls) == 3 and set(calls) == {loop._csock.fileno()}, calls
        print("never")

    asyncio.run(main())
    """
    assert run_program(source) == "never\n"


OTHER_LOOP = """
class Other:
    def __init__(self, inner):
        self._inner = inner

    def add_signal_handler(self, sig, callback, *args):
        self._inner.add_signal_handler(sig, callback, *args)
"""


@pytest.mark.parametrize(
    "places",
    [
        {"before": "loop = Other(loop); wakeup.harden_loop(loop)", "after": ""},
        {"before": "loop = Other(loop)", "after": "wakeup.harden_loop(loop)"},
    ],
    ids=["before the handler", "after the handler"],
)
def test_a_loop_that_hides_its_wakeup_socket_is_hardened_too(places: dict[str, str]) -> None:
    """Such as uvloop's: its fd is known only to the interpreter."""
    assert run_program(HANDLER.format(program=OTHER_LOOP, **places)) == "seen\n"


def test_a_loop_without_signal_handlers_gets_no_wakeup_fd() -> None:
    source = f"""
import signal
from greenroom.system import wakeup
{OTHER_LOOP}
wakeup.harden_loop(Other(None))
print(signal.set_wakeup_fd(-1))
"""
    assert run_program(source) == "-1\n"


async def test_the_loop_of_a_thread_is_left_alone() -> None:
    def in_thread() -> str:
        loop = asyncio.new_event_loop()
        try:
            harden_loop(loop)
            return type(loop.add_signal_handler).__name__
        finally:
            loop.close()

    assert await asyncio.to_thread(in_thread) == "method"


PROGRAM_WITH_POOL = """
import asyncio, os, signal, sys
import greenroom

async def main():
    loop, seen = asyncio.get_running_loop(), asyncio.Event()
    async with greenroom.ProcessPool(sys.argv[1], num_idle_processes=1) as pool:
        loop.add_signal_handler(signal.SIGUSR1, seen.set)
        for _ in range(5000):
            os.kill(os.getpid(), signal.SIGUSR1)
        await seen.wait()
        print((await (await pool.launch()).wait()).result)

asyncio.run(main())
"""


def test_a_pool_hardens_the_loop_that_it_runs_on(make_app: MakeApp, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM_WITH_POOL)
    app = make_app("@app.entrypoint\nasync def entrypoint(ctx):\n    return 'served'\n")
    done = subprocess.run([sys.executable, str(program), app], capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, WARNING in done.stderr) == ("served\n", False), done.stderr


IN_SESSION = """
def storm():
    for _ in range(5000):
        os.kill(os.getpid(), signal.SIGUSR1)

@app.preload
def preload():
    async def main():
        seen = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, seen.set)
        storm()
        await seen.wait()
    asyncio.run(main())

@app.entrypoint
async def entrypoint(ctx):
    seen = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, seen.set)
    storm()
    await seen.wait()
    return "seen"
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_signal_handlers_of_the_app_survive_a_storm(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, start_method: str
) -> None:
    async with ProcessPool(make_app(IN_SESSION), num_idle_processes=1, start_method=start_method) as pool:
        assert (await (await pool.launch(timeout=50)).wait()).result == "seen"
    assert WARNING not in caplog.text


async def test_a_zygote_survives_a_storm_of_deaths_of_no_children(make_app: MakeApp) -> None:
    app = make_app("@app.entrypoint\nasync def entrypoint(ctx):\n    return 'served'\n")
    async with ProcessPool(app, num_idle_processes=1) as pool:
        zygote = pool.stats().zygote_pid
        assert zygote is not None
        for _ in range(20_000):
            os.kill(zygote, signal.SIGCHLD)
        assert (await (await pool.launch(timeout=50)).wait()).result == "served"
        await eventually(lambda: pool.stats().idle == 1)
        assert pool.stats().zygote_pid == zygote

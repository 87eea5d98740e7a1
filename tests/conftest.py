"""What every test stands on: async tests, apps as source text, and the proof that nothing is left over."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import os
import signal
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from support import CERTIFICATE

from greenroom.system import prctl, proc

TEST_TIMEOUT = 240.0
"""Seconds: generous, as all deadlines of tests are. It ends a test that hangs, and measures nothing."""

GRACE = 30.0
"""Seconds until what is still there counts as left over."""

# A busy machine may take any time for an example, and to make one.
hypothesis.settings.register_profile(
    "greenroom", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("greenroom")

# Inherited by all that the tests start. Each process that imports aiohttp reads the machine's certificates, which takes
# 0.1 s of CPU, and tests speak to loopback alone: one certificate is enough, where an empty file is refused. And tests
# rewrite apps at the same length within a second, where the compiled old one would pass for the new.
os.environ.setdefault("SSL_CERT_FILE", str(CERTIFICATE))
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

# Workers that tests kill leave their flight recordings behind.
_RECORDINGS = tempfile.TemporaryDirectory(prefix="greenroom-recordings-", dir="/dev/shm")
os.environ["GREENROOM_FLIGHT_RECORDER_DIR"] = _RECORDINGS.name

# Sessions of a test wait for the CPUs that other tests use. Tests of the admission by CPU set a bound of their own.
os.environ.setdefault("GREENROOM_MAX_CPU_WAIT_MS", "off")

# A shell ignores them for what it runs in the background, and whatever the tests start would inherit that.
for _signum, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, _handler)


def pytest_unconfigure() -> None:
    """Remove what killed workers have left: a process of pytest-xdist runs no exit hooks."""
    _RECORDINGS.cleanup()


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def`` tests, each on an event loop of its own, with a generous deadline."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def bounded() -> None:
        async with asyncio.timeout(TEST_TIMEOUT):
            await pyfuncitem.obj(**arguments)

    with asyncio.Runner(loop_factory=TestLoop) as runner:
        try:
            runner.run(bounded())
        finally:
            runner.run(_close_ended_subprocesses(runner.get_loop()))
    return True


class TestLoop(asyncio.SelectorEventLoop):
    """Remembers its subprocesses."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.subprocesses: list[asyncio.SubprocessTransport] = []

    async def subprocess_exec(self, *arguments: Any, **options: Any) -> Any:
        made = await super().subprocess_exec(*arguments, **options)
        self.subprocesses.append(made[0])
        return made


async def _close_ended_subprocesses(loop: asyncio.AbstractEventLoop) -> None:
    """Close what is open of subprocesses that have ended: their pipes may end later, and outlive the loop."""
    assert isinstance(loop, TestLoop)
    for subprocess in loop.subprocesses:
        if subprocess.get_returncode() is not None:
            subprocess.close()
    await asyncio.sleep(0)  # for the pipes to be told


@pytest.fixture
def make_app(tmp_path: Path) -> Callable[[str], str]:
    """Write an app's source to a file; returns how a pool names it. ``app`` and imports are provided."""
    numbers = itertools.count()

    def make(source: str) -> str:
        path = tmp_path / f"app_{next(numbers)}.py"
        path.write_text(_PRELUDE + textwrap.dedent(source))
        return f"{path}:app"

    return make


_PRELUDE = """\
import asyncio, ctypes, os, random, signal, sys, threading, time
import greenroom

app = greenroom.App()
"""


@pytest.fixture(autouse=True, scope="module")
def frozen() -> Iterator[None]:
    """Take what is there before a file's tests out of the collection after each, which took 0.1 s for it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left_over() -> Iterator[None]:
    """After each test: no process, no zombie, no fd and no thread more than before."""
    # A pool in an earlier test has made this process a subreaper; orphans of other tests are init's.
    prctl.set_child_subreaper(False)
    fds, threads, children = _fds(), set(threading.enumerate()), _children()
    yield
    gc.collect()
    problems = _eventually_none(lambda: _left_over(fds, threads, children))
    assert not problems, "left over: " + "; ".join(problems)


def _left_over(fds: dict[int, str], threads: set[threading.Thread], children: set[int]) -> list[str]:
    found = [f"process {pid} ({_describe(pid)})" for pid in _children() - children]
    found += [f"thread {thread.name}" for thread in set(threading.enumerate()) - threads]
    found += [f"fd {fd} ({target})" for fd, target in _fds().items() if fds.get(fd) != target]
    return found


def _eventually_none(look: Callable[[], list[str]]) -> list[str]:
    """What is still there after some grace: the kernel tears a process down in its own time."""
    give_up = time.monotonic() + GRACE
    while (found := look()) and time.monotonic() < give_up:
        time.sleep(0.01)
    return found


def _fds() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own
        if not target.startswith("/proc/"):
            found[int(name)] = target
    return found


def _children() -> set[int]:
    """All descendants of this process, zombies included."""
    found, border = set[int](), [os.getpid()]
    while border:
        with suppress(OSError):  # gone by now
            children = proc.children(border.pop())
            found.update(children)
            border += children
    return found


def _describe(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().partition(" ")[2][:40]
    except OSError:
        return "gone"

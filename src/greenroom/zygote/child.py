"""Life of a child, from the fork to the exit: a copy of the zygote becomes a process of its own.

This code runs in the child. :mod:`greenroom.pool.shell.child_client` is the supervisor's side. The order of calls is
:func:`settle`, then :func:`live`, both inside :func:`run`, which ends the process. A spawned process
(:mod:`.spawned`) makes the same calls. :func:`prepare_output` and :func:`flush_stdio` are also called in the zygote.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, NamedTuple, NoReturn

from ..app import App
from ..job import JobProcess
from ..system import crash_stacks, lifeline, mark, prctl
from ..system.heartbeat import CRASH_AT, HeartbeatPage
from ..wire.messages import ChildSettings
from . import open_objects, random_numbers, signals
from .app_logging import AppLogging
from .child_main import ChildMain, Spawned

__all__ = [
    "PROCESS_VARIABLE",
    "Inheritance",
    "flush_stdio",
    "live",
    "own_what_it_starts",
    "prepare_output",
    "run",
    "settle",
]

PROCESS_VARIABLE = "GREENROOM_PROCESS"
"""Variable of the environment with the id of the process in the pool."""

_OOM_SCORE = 300  # of 1000: when memory is short, the kernel should kill a child and not the supervisor


class Inheritance(NamedTuple):
    """File descriptors that the supervisor has made for one child."""

    control: int
    log: int
    stdout: int
    stderr: int
    lifeline: int
    heartbeat: int


def run(life: Callable[[], int]) -> NoReturn:
    """Run ``life``, which returns the exit code of this process, and then end this process. Never returns."""
    code, pid = 70, os.getpid()  # EX_SOFTWARE, if life() raises
    try:
        code = life()
    except BaseException:
        traceback.print_exc()
    finally:
        _exit(code, is_copy=os.getpid() != pid)


class Channels(NamedTuple):
    """Connections of a settled process to the supervisor, and the zygote's record of signals."""

    control: int
    page: HeartbeatPage
    logging: AppLogging
    witness: signals.Witness | None


def live(
    app: App, settings: ChildSettings, proc: JobProcess, channels: Channels, spawned: Spawned | None = None
) -> int:
    """Run a settled process from prewarm to the end of the clean-up, and return the exit code.

    ``spawned`` is what a spawned process has found out itself, because it has no zygote.
    """
    control, page, app_logging, witness = channels
    app_logging.install(app.log_level)
    gc.enable()
    runner = ChildMain(app, settings, proc, control, page, spawned, on_prewarmed=app_logging.settle)
    reaction = signals.OwnSignals(page, witness, runner.interrupt)
    if witness is None:
        signals.handle_group_signals(reaction.heard)
    else:
        signals.react_by(reaction.heard)  # the zygote has installed the handlers
    return runner.run()


def settle(inheritance: Inheritance, process_id: str, pool_token: str, close: list[int]) -> HeartbeatPage:
    """Make this process independent of the zygote, and take over the fds that the supervisor has made for this process.

    ``close`` are the fds of the zygote that this process must close. Return the heartbeat page.
    """
    # First: until the lifeline is armed, only the zygote could end this process after the supervisor's death.
    lifeline.arm(inheritance.lifeline)
    for fd in close:
        os.close(fd)
    signals.reset_in_child()
    if os.getpgrp() != os.getpid():  # a spawned process leads a session (setsid(2)) and so a group already
        os.setpgid(0, 0)
    _hold_lifeline(inheritance.lifeline)
    prctl.set_name("gr:child")
    own_what_it_starts(pool_token)
    _replace_stdio(inheritance)
    os.environ[PROCESS_VARIABLE] = process_id
    _prefer_as_oom_victim()
    _reseed()
    page = HeartbeatPage(inheritance.heartbeat)
    _write_crashes_behind(inheritance.heartbeat)
    return page


def _hold_lifeline(fd: int) -> None:
    """Extend the lifeline to this process's group, which exists by now, and to programs that this process executes."""
    lifeline.keep_in_exec(fd)
    with suppress(OSError):  # such as no free fd: then only the zygote and the reaper end the group
        lifeline.keep_in_exec(lifeline.arm_for_group(fd))


def _write_crashes_behind(heartbeat: int) -> None:
    """Have the stacks of a crash written behind the heartbeat page, or close the fd of the page."""
    os.lseek(heartbeat, CRASH_AT, os.SEEK_SET)
    if not crash_stacks.write_into(heartbeat):
        os.close(heartbeat)


def own_what_it_starts(pool_token: str) -> None:
    """Mark this process and its descendants, so that their owner is known when they are orphans.

    The zygote becomes the parent of marked orphans, and reaps them when they die. Where marks do not hold, this process
    becomes a subreaper. Then its orphans stay below this process while it lives, and dead orphans stay zombies.
    """
    if not mark.put(pool_token, os.getpid()):
        prctl.set_child_subreaper()


def _replace_stdio(inheritance: Inheritance) -> None:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((null, 0), (inheritance.stdout, 1), (inheritance.stderr, 2)):
        os.dup2(source, target)
        os.close(source)


def _prefer_as_oom_victim() -> None:
    with suppress(OSError):  # not writable in some containers; then all processes have the same score
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(_OOM_SCORE).encode())
        finally:
            os.close(fd)


def _reseed() -> None:
    """Give this process random numbers of its own."""
    random_numbers.reseed()
    uuid: Any = sys.modules.get("uuid")
    if getattr(uuid, "_generate_time_safe", None) is not None:
        # libuuid draws its clock sequence once, and each fork inherits this sequence. So two children would make the
        # same UUID in the same microsecond. Python's own code draws a sequence in each process, so libuuid is disabled
        # here. Call getnode() before that, to get the node from libuuid. After that, getnode() would run `ip link`.
        uuid.getnode()
        uuid._generate_time_safe = None


def prepare_output() -> None:
    """Make this process write each line at once, and in UTF-8, as the supervisor expects.

    By default, Python writes blocks into a pipe, in the encoding of the locale or of ``PYTHONIOENCODING``.
    """
    for name in ("stdout", "stderr"):
        with suppress(AttributeError, ValueError):  # replaced by something else, or closed
            try:
                getattr(sys, name).reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")
            except OSError:  # the stream was a file, and is a pipe now: reconfigure() asks for the position in a file
                raw = open(getattr(sys, name).fileno(), "wb", closefd=False)  # noqa: SIM115  # it stays open
                setattr(sys, name, TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True))


def flush_stdio() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # replaced, closed, or without a reader
            stream.flush()


def _exit(code: int, *, is_copy: bool) -> NoReturn:
    """End this process as the interpreter would, but without C's ``exit``.

    In a forked process, C exit handlers destroy objects that threads of the parent were waiting on. The handlers hang
    (onnxruntime) or abort (tokio). So Python's own hooks run here, and then ``os._exit``. If a thread, a hook or a full
    pipe delays this end, the supervisor kills this process after ``cleanup_timeout``.

    ``is_copy``: this process is a copy that the app has forked from the child.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # joins the non-daemon threads
        atexit._run_exitfuncs()
        if not is_copy:  # a copy that the app has forked would write all buffers a second time
            open_objects.finish()
        flush_stdio()
    except BaseException:
        traceback.print_exc()
    os._exit(code)

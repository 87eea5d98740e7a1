"""From the fork to the exit: how a copy of the zygote becomes a process of its own."""

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
from ..system import lifeline, mark, prctl
from ..system.heartbeat import HeartbeatPage
from ..wire.messages import AppFacts, ChildSettings
from . import open_objects, random_numbers, signals
from .app_logging import AppLogging
from .runner import Runner

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

_OOM_SCORE = 300  # of 1000: when memory is short the kernel should end a session, not the supervisor


class Inheritance(NamedTuple):
    """The fds that the supervisor has made for one child."""

    control: int
    log: int
    stdout: int
    stderr: int
    lifeline: int
    heartbeat: int


def run(life: Callable[[], int]) -> NoReturn:
    """Run the life of this process, which returns its exit code, and exit."""
    code, pid = 70, os.getpid()  # EX_SOFTWARE, if not even the error can be told
    try:
        code = life()
    except BaseException:
        traceback.print_exc()
    finally:
        _exit(code, is_copy=os.getpid() != pid)


class Channels(NamedTuple):
    """Channels by which a process that has settled is heard and seen."""

    control: int
    page: HeartbeatPage
    logging: AppLogging
    witness: signals.Witness | None


def live(app: App, settings: ChildSettings, proc: JobProcess, channels: Channels, facts: AppFacts | None = None) -> int:
    """Live from prewarm to the end of the clean-up, in a process that has settled; return the exit code.

    ``facts`` come from a process that has loaded the app itself.
    """
    control, page, app_logging, witness = channels
    app_logging.install(app.log_level)
    gc.enable()
    runner = Runner(app, settings, proc, control, page, facts, on_prewarmed=app_logging.settle)
    reaction = signals.OwnSignals(page, witness, runner.interrupt)
    if witness is None:
        signals.handle_group_signals(reaction.heard)
    else:
        signals.react_by(reaction.heard)  # by the zygote's handlers
    return runner.run()


def settle(inheritance: Inheritance, launch_id: str, pool_token: str, close: list[int]) -> HeartbeatPage:
    """Become a process of its own, with the fds that the supervisor has made for it."""
    # The lifeline first: until it is armed, only the zygote would end this process.
    lifeline.arm(inheritance.lifeline)
    for fd in close:
        os.close(fd)
    signals.reset_in_child()
    if os.getpgrp() != os.getpid():  # a spawned process leads a session, and so a group, already
        os.setpgid(0, 0)
    prctl.set_name("gr:child")
    own_what_it_starts(pool_token)
    _replace_stdio(inheritance)
    os.environ[PROCESS_VARIABLE] = launch_id
    _prefer_as_oom_victim()
    _reseed()
    page = HeartbeatPage(inheritance.heartbeat)
    os.close(inheritance.heartbeat)
    return page


def own_what_it_starts(pool_token: str) -> None:
    """Have its orphans be known as its own, wherever they go.

    By its mark: they go to the zygote, which reaps them when they die. Where marks do not hold, they stay below
    it while it lives, and dead ones stay zombies.
    """
    if not mark.put(pool_token, os.getpid()):
        prctl.set_child_subreaper()


def _replace_stdio(inheritance: Inheritance) -> None:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((null, 0), (inheritance.stdout, 1), (inheritance.stderr, 2)):
        os.dup2(source, target)
        os.close(source)


def _prefer_as_oom_victim() -> None:
    with suppress(OSError):  # not writable in some containers; then all are equal
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
        # libuuid draws its clock sequence once, and a fork inherits it: in the same microsecond two children would make
        # the same UUID. Python's own code draws a sequence in each process. The node is still libuuid's: without that,
        # getnode() would run `ip link` in every child.
        uuid.getnode()
        uuid._generate_time_safe = None


def prepare_output() -> None:
    """Have lines written as they come, and in UTF-8, as whoever reads them expects: whatever the locale says.

    Into a pipe Python writes in blocks, and in the encoding of the locale or of ``PYTHONIOENCODING``.
    """
    for name in ("stdout", "stderr"):
        with suppress(AttributeError, ValueError):  # replaced by something else, or closed
            try:
                getattr(sys, name).reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")
            except OSError:  # it was a file when the interpreter began, is a pipe by now, and asks where it is
                raw = open(getattr(sys, name).fileno(), "wb", closefd=False)  # noqa: SIM115  # for the process's life
                setattr(sys, name, TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True))


def flush_stdio() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # replaced, closed, or nobody reads it
            stream.flush()


def _exit(code: int, *, is_copy: bool) -> NoReturn:
    """End as the interpreter would, but not through C's ``exit``.

    In a forked process C exit handlers destroy what threads of the parent were waiting on, and hang
    (onnxruntime) or abort (tokio); so Python's own hooks run here, and then ``os._exit``. Whatever
    holds this up, a thread, a hook or a full pipe, is the supervisor's to end.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # joins the non-daemon threads
        atexit._run_exitfuncs()
        if not is_copy:  # which the app has forked, and which came back here: else all were written twice
            open_objects.finish()
        flush_stdio()
    except BaseException:
        traceback.print_exc()
    os._exit(code)

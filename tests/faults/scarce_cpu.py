"""Processes that are ready to run, and get little of a CPU or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import eventually, kill

from greenroom.system import proc, stackdump

__all__ = ["HOG", "confine", "has_run_dry", "monopoly", "require_a_second_cpu", "starved", "without_stacks"]

# Started by the zygote: the kernel weighs processes of one session against each other, and then sessions.
HOG = """
import subprocess

def busy():
    while True:
        pass

def start_hog():
    source = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)\\nwhile True: pass"
    note("hog", subprocess.Popen([sys.executable, "-c", source]).pid)
"""
"""For an app: ``busy()`` never ends; ``start_hog()`` starts what keeps a CPU busy once it is continued."""


@contextmanager
def monopoly(cpu: int) -> Iterator[None]:
    """A CPU that is busy with a realtime process, which leaves a twentieth of it to all others."""
    require_a_second_cpu()
    source = "import os, sys; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); print(flush=True)\n"
    command = ["taskset", "--cpu-list", str(cpu), sys.executable, "-c", f"{source}while True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield
        finally:
            process.kill()


def confine(pid: int, cpus: set[int]) -> None:
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), cpus)


@contextmanager
def starved(pid: int, hog: int) -> Iterator[None]:
    """A process that gets no CPU: on the one that it has, another comes before it."""
    require_a_second_cpu()
    cpus = os.sched_getaffinity(0)
    for each in (pid, hog):
        os.sched_setaffinity(each, {max(cpus)})
    os.setpriority(os.PRIO_PROCESS, hog, -20)
    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    kill(hog, signal.SIGCONT)
    try:
        yield
    finally:
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(pid, cpus)
        kill(hog)


async def has_run_dry(pid: int) -> None:
    """Wait until a busy process gets no CPU any more: at first it has some left to its credit."""
    used, since = -1.0, 0.0

    def is_dry() -> bool:
        nonlocal used, since
        before, (used, _) = used, proc.schedule(pid)
        if used != before:
            since = time.monotonic()
        return time.monotonic() - since > 0.3

    await eventually(is_dry, "starvation")


async def without_stacks(pid: int, seconds: float, is_over: Callable[[], object]) -> None:
    """Wait until a process was asked for its stacks, and has had no CPU to write them for so long.

    The kernel may give it a little all the same; then this returns sooner.
    """
    await eventually(lambda: _is_asked(pid) or is_over(), "request for the stacks")
    begin = time.monotonic()
    await eventually(lambda: time.monotonic() - begin > seconds or not _is_asked(pid))


def _is_asked(pid: int) -> bool:
    """Tell whether the signal that asks for its stacks is pending."""
    try:
        lines = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:  # it is gone
        return False
    return bool(int(lines["SigPnd"], 16) & 1 << (stackdump.SIGNAL - 1))


def require_a_second_cpu() -> None:
    if os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs to be root, and to have a second CPU")

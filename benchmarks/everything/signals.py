"""Signals and debuggers for processes of the worker: only for those that carry its mark."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from greenroom.system import prctl, proc

__all__ = ["held", "is_marked", "send"]

DEBUGGER = """
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
held = 0
for task in map(int, os.listdir(f"/proc/{pid}/task")):
    if libc.ptrace(16, task, 0, 0) == 0:  # PTRACE_ATTACH
        os.waitpid(task, 0x40000000)  # __WALL
        held += 1
print(held, flush=True)
sys.stdin.read()
"""


def is_marked(pid: int, mark: str) -> bool:
    """Tell whether a process is one that the worker has started. One that is dead is none."""
    with suppress(OSError):
        return proc.environ_has(pid, mark.encode())
    return False


def send(pid: int, mark: str, signum: signal.Signals) -> bool:
    """Send a signal to one of the worker's processes; returns whether it was there."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            if is_marked(pid, mark):
                signal.pidfd_send_signal(pidfd, signum)
                return True
        finally:
            os.close(pidfd)
    return False


@asynccontextmanager
async def held(pid: int, known: set[int]) -> AsyncIterator[int]:
    """Attach a debugger to all threads of a process, until the end of the block; gives how many it holds.

    The debugger's pid goes into ``known``: it is a child of this process that was not left behind by anybody.
    """
    debugger = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DEBUGGER, str(pid),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        preexec_fn=prctl.set_parent_death_signal,
    )  # fmt: skip
    known.add(debugger.pid)
    assert debugger.stdin is not None
    assert debugger.stdout is not None
    try:
        yield int((await debugger.stdout.readline()).strip() or 0)
    finally:
        debugger.stdin.close()  # it ends, and with it its hold
        await debugger.wait()
        known.discard(debugger.pid)

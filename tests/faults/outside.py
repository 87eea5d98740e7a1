"""A supervisor in a process of its own, to be killed, stopped, starved or shut in; and what is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from support import DEADLINE, eventually

from greenroom.system import prctl, proc

__all__ = ["Supervisor", "reap", "reapers", "still_alive", "token_of"]

_HERE = Path(__file__).parent

# `say` tells the test something; `told` waits for a word from it. The script itself is the body of `main`.
_PRELUDE = f"""\
import asyncio, json, logging, os, resource, signal, subprocess, sys, time
from contextlib import suppress
from pathlib import Path
sys.path[:0] = {[str(_HERE), str(_HERE.parent)]!r}
from support import eventually, idle_pids, is_gone, wait_for_exit, zygote_pid
from stage import assert_recovered
from greenroom import AppLoadError, ProcessPool

APP = sys.argv[1]

def say(**values):
    print(json.dumps(values), flush=True)

async def told():
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

def fds():
    return {{name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{{name}}")}}

async def main():
"""


class Supervisor:
    """Runs a script that serves ``app``; ends it, if the test did not, by SIGKILL."""

    def __init__(self, app: str, script: str, *, wrapper: tuple[str, ...] = ()) -> None:
        source = _PRELUDE + textwrap.indent(textwrap.dedent(script), "    ") + "\nasyncio.run(main())\n"
        self._command = [*wrapper, sys.executable, "-c", source, app]
        self._process: asyncio.subprocess.Process
        self._below: set[int] = set()
        self._pools: set[int] = set()

    async def __aenter__(self) -> Supervisor:
        # What is orphaned by its death comes to this process, so that all of it can be accounted for.
        prctl.set_child_subreaper()
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self.note_below()
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        await self._process.wait()
        # A reaper was noted, and has no mark. A fork of the moment of the kill has a mark, and was not noted.
        await eventually(lambda: not reap(self._below | self._adopted()), "end of what a test had left running")
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(BrokenPipeError, ConnectionResetError):
            await self._process.stdin.wait_closed()

    @property
    def pid(self) -> int:
        return self._process.pid

    def note_below(self) -> None:
        """Before it is killed otherwise than by :meth:`signal`: note what this process has to reap then."""
        self._below |= self._note_pools()

    def _note_pools(self) -> set[int]:
        """Note by which marks its processes are known; returns these processes."""
        below = _descendants(self.pid)
        self._pools |= {pool for pid in below if (pool := _pool_of(pid)) is not None}
        return below

    def _adopted(self) -> set[int]:
        """The children of this process, zombies included, that were started below this supervisor."""
        return {pid for pid in proc.children(os.getpid()) if _pool_of(pid) in self._pools}

    def signal(self, signum: int) -> None:
        if self._process.returncode is None:
            self._note_pools()
            self._below.update(reapers(self.pid))
        os.kill(self.pid, signum)

    async def says(self) -> dict[str, Any]:
        """The next thing that it says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            line = await self._process.stdout.readline()
        assert line, f"the supervisor ended with {await self._process.wait()}"
        said: dict[str, Any] = json.loads(line)
        return said

    def tell(self, word: str = "go") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    async def ends(self, deadline: float = DEADLINE) -> int:
        """Wait for its end; returns its exit code, negative for a signal."""
        async with asyncio.timeout(deadline):
            return await self._process.wait()


def token_of(zygote: int) -> bytes:
    """The entry in the environment that marks everything a pool has started."""
    entries = Path(f"/proc/{zygote}/environ").read_bytes().split(b"\0")
    return next(entry for entry in entries if entry.startswith(b"GREENROOM_POOL="))


def still_alive(token: bytes) -> set[int]:
    """Every process on this machine that carries the token. (A zombie has no environment any more.)"""
    found = set()
    for pid in proc.pids():
        with suppress(OSError):
            if proc.environ_has(pid, token):
                found.add(pid)
    return found


def reap(pids: set[int]) -> set[int]:
    """Reap those that died and came to this process; returns those that are still there."""
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


def reapers(pid: int) -> list[int]:
    """Return the reapers of the pools of a supervisor."""
    found = []
    for child in proc.children(pid):
        with suppress(OSError):  # gone
            found += [child] if b"greenroom.zygote.reaper" in Path(f"/proc/{child}/cmdline").read_bytes() else []
    return found


def _pool_of(pid: int) -> int | None:
    """The part of a mark that names the pool; ``None`` if the process has no mark, or is gone."""
    try:
        limit = proc.realtime_limit(pid)
    except OSError:
        return None
    return None if limit is None else limit >> 22


def _descendants(pid: int) -> set[int]:
    found, border = set[int](), {pid}
    while border:
        border = {child for parent in border for child in proc.children(parent)}
        found |= border
    return found

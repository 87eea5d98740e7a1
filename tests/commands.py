"""Greenroom's commands, each in a process of its own: forked from one that has imported them, where that tells no more.

A command takes 0.4 s of CPU to import what it runs, and the tests run a thousand. So each process of pytest starts a
*nursery*, which imports the commands once and forks a process for each order. Whatever the interpreter reads when it
starts (``PYTHON...``, locale), and what only :mod:`subprocess` can do, takes the way of the real command.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from greenroom.system import prctl, proc

__all__ = ["GREENROOM", "Forked", "children", "run", "start"]

GREENROOM = str(Path(sys.executable).with_name("greenroom"))
PIPE, DEVNULL = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL

_NURSERY = Path(__file__).with_name("command_nursery.py")
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_", "SSL_")
_PR_GET_CHILD_SUBREAPER = 37
_STREAMS = ("stdin", "stdout", "stderr")


async def start(*arguments: str, limit: int = 1 << 16, **spawn: Any) -> asyncio.subprocess.Process | Forked:
    """Run ``greenroom ARGUMENT...``; takes what ``asyncio.create_subprocess_exec`` takes."""
    if not can_be_forked(spawn):
        return await asyncio.create_subprocess_exec(GREENROOM, *arguments, limit=limit, **spawn)
    ours, theirs = _open_streams(spawn)
    try:
        pid = _nursery.fork(arguments, spawn.get("env") or os.environ, spawn.get("cwd") or os.getcwd(), theirs)
    finally:
        for fd in theirs:
            os.close(fd)
    loop = asyncio.get_running_loop()
    forked = Forked(pid, loop)
    await forked.connect(ours, limit)
    remembered = getattr(loop, "subprocesses", None)  # a test's loop closes what is left of them
    if remembered is not None:
        remembered.append(forked)
    return forked


def _open_streams(spawn: Mapping[str, Any]) -> tuple[dict[str, int], list[int]]:
    """Return the ends of its pipes that are ours, by name, and its own three standard streams."""
    ours: dict[str, int] = {}
    theirs: list[int] = []
    for fd, name in enumerate(_STREAMS):
        wanted = spawn.get(name)
        if wanted == PIPE:
            reading, writing = os.pipe()
            ours[name], its = (writing, reading) if name == "stdin" else (reading, writing)
        elif wanted == DEVNULL:
            its = os.open(os.devnull, os.O_RDWR)
        elif wanted is None:
            its = os.dup(fd)
        else:
            its = os.dup(wanted if isinstance(wanted, int) else wanted.fileno())
        theirs.append(its)
    return ours, theirs


def can_be_forked(spawn: Mapping[str, Any]) -> bool:
    env = spawn.get("env") or os.environ
    names = {name for name in (*env, *os.environ) if name.startswith(_READ_AT_START)}
    return (
        set(spawn) <= {*_STREAMS, "env", "cwd"}
        and all(env.get(name) == os.environ.get(name) for name in names)
        and not any(spawn.get(name) == subprocess.STDOUT for name in _STREAMS)
    )


class Forked:
    """A command's process, as ``asyncio.subprocess.Process`` has it."""

    def __init__(self, pid: int, loop: asyncio.AbstractEventLoop) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._loop = loop
        self._transports: list[asyncio.BaseTransport] = []
        self._ended = asyncio.Event()
        self._pidfd = os.pidfd_open(pid)
        loop.add_reader(self._pidfd, self._reap)

    async def connect(self, fds: dict[str, int], limit: int) -> None:
        for name, fd in fds.items():
            if name == "stdin":
                transport, protocol = await self._loop.connect_write_pipe(
                    lambda: asyncio.streams.FlowControlMixin(self._loop), os.fdopen(fd, "wb", 0)
                )
                self.stdin = asyncio.StreamWriter(transport, protocol, None, self._loop)
                self._transports.append(transport)
                continue
            reader = asyncio.StreamReader(limit=limit, loop=self._loop)
            reading, _ = await self._loop.connect_read_pipe(
                functools.partial(asyncio.StreamReaderProtocol, reader), os.fdopen(fd, "rb", 0)
            )
            self._transports.append(reading)
            setattr(self, name, reader)

    def _reap(self) -> None:
        try:
            _, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            self.returncode = 255  # as asyncio has it, when somebody else has reaped the process
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self, stdin: bytes | None = None) -> tuple[bytes, bytes]:
        if self.stdin is not None:
            self.stdin.write(stdin or b"")
            self.stdin.close()
        out, err, _ = await asyncio.gather(_all(self.stdout), _all(self.stderr), self.wait())
        return out, err

    def send_signal(self, signum: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signum)

    def get_returncode(self) -> int | None:
        return self.returncode

    def close(self) -> None:
        for transport in self._transports:
            transport.close()


def children() -> list[int]:
    """The processes that tests have started here: all but the nursery."""
    return [pid for pid in proc.children(os.getpid()) if pid != _nursery.pid]


def _is_subreaper() -> bool:
    answer = ctypes.c_int()
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


def run(*arguments: str, stdin: str = "", **spawn: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; outside of an event loop."""

    async def done() -> subprocess.CompletedProcess[str]:
        process = await start(*arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, **spawn)
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return subprocess.CompletedProcess([GREENROOM, *arguments], process.returncode, out.decode(), err.decode())

    return asyncio.run(done())


async def _all(reader: asyncio.StreamReader | None) -> bytes:
    return b"" if reader is None else await reader.read()


class _Nursery:
    """The process that forks commands; ends with this one, whose end closes the socket."""

    def __init__(self) -> None:
        self._socket, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_NURSERY), str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def fork(self, arguments: tuple[str, ...], env: Mapping[str, str], cwd: Any, fds: list[int]) -> int:
        order = json.dumps([[GREENROOM, *arguments], dict(env), str(cwd)]).encode()
        was_subreaper = _is_subreaper()
        prctl.set_child_subreaper()  # the new process becomes a child of this one
        socket.send_fds(self._socket, [len(order).to_bytes(4, "big")], fds)
        self._socket.sendall(order)
        pid = int.from_bytes(self._socket.recv(4, socket.MSG_WAITALL), "big")
        prctl.set_child_subreaper(was_subreaper)
        return pid

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_nursery = _Nursery()  # before any test: it would count as left over
atexit.register(_nursery.close)

"""J8: a session that sends fds to the supervisor, such as sockets with SO_LINGER, whose close waits for a peer."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from support import DEADLINE

from greenroom import ProcessPool
from greenroom.system import passed_fds

MakeApp = Callable[[str], str]

APP = """
import errno, socket

def own_channels():
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # no socket, or the folder's own fd
            continue
        with sock:
            if sock.family == socket.AF_UNIX and os.fstat(int(name)).st_ino not in OWN:
                yield sock

OWN = set()

@app.entrypoint
async def entrypoint(ctx):
    # The event loop wakes itself up by a pair of its own.
    loop = asyncio.get_running_loop()
    OWN.update(os.fstat(each.fileno()).st_ino for each in (loop._ssock, loop._csock))
    refusals = []
    for channel in own_channels():
        try:
            socket.send_fds(channel, [b"{"], [0])
            refusals.append("sent")
        except OSError as error:
            refusals.append(errno.errorcode[error.errno])
    return refusals
"""


def _is_refused_here() -> bool:
    receiver, sender = socket.socketpair()
    with receiver, sender:
        passed_fds.refuse(receiver)
        try:
            socket.send_fds(sender, [b"x"], [0])
        except OSError as error:
            return error.errno == errno.EPERM
        return False


@pytest.mark.parametrize("method", ["zygote", "spawn"])
async def test_J8_a_session_cannot_send_fds_to_its_supervisor(make_app: MakeApp, method: str) -> None:
    if not _is_refused_here():
        pytest.skip("Linux before 6.16 cannot refuse fds")
    async with ProcessPool(make_app(APP), num_idle_processes=1, start_method=method) as pool:
        report = await (await pool.launch()).wait()
    assert report.reason == "completed", report
    assert isinstance(report.result, list)
    assert len(report.result) >= 2  # the channel for messages, and that for log records
    assert set(report.result) == {"EPERM"}


# --- before Linux 6.16 ---------------------------------------------------------------------------

LINGERING = """
import asyncio, os, socket, struct

KEPT = []

def lingering():
    # The close of this connection waits for ten minutes, since its peer reads nothing.
    listener = socket.create_server(("127.0.0.1", 0))
    KEPT.append(listener)
    sock = socket.create_connection(listener.getsockname())
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
    try:
        while True:
            sock.send(bytes(1 << 16))
    except BlockingIOError:
        sock.setblocking(True)  # else its close does not wait
        return sock

def channels(kind):
    loop = asyncio.get_running_loop()
    own = {os.fstat(each.fileno()).st_ino for each in (loop._ssock, loop._csock)}
    for name in map(int, os.listdir("/proc/self/fd")):
        try:
            sock = socket.socket(fileno=os.dup(name))
        except OSError:  # no socket, or the folder's own fd
            continue
        if sock.family == socket.AF_UNIX and sock.type == kind and os.fstat(name).st_ino not in own:
            yield sock

@app.entrypoint
async def entrypoint(ctx):
    kind, count = ctx.job.metadata
    connections = [lingering() for _ in range(count)]
    for channel in channels(getattr(socket, kind, None)):
        for each in connections:
            socket.send_fds(channel, [b"{"], [each.fileno()])
    for each in connections:
        os.close(each.detach())
    await asyncio.sleep(1000)
"""

SUPERVISOR = """
import asyncio, json, sys
from greenroom import ProcessPool

async def main():
    async with ProcessPool(sys.argv[1], num_idle_processes=1) as pool:
        report = await (await pool.launch(json.loads(sys.argv[2]))).wait()
    print(json.dumps([report.reason, report.detail]))

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_SEQPACKET"])
@pytest.mark.parametrize("count", [1, 20])  # with more than one, some wait unread when the channel is closed
async def test_J8_before_linux_6_16_who_sends_fds_is_ended(make_app: MakeApp, kind: str, count: int) -> None:
    """The control channel is a stream, and that of log records has packets. The event loop waits for no close."""
    command = [sys.executable, "-c", SUPERVISOR, make_app(LINGERING), json.dumps([kind, count])]
    environment = {**os.environ, passed_fds.KERNEL_VARIABLE: "0"}
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE, env=environment
    )
    assert done.returncode == 0, done.stderr
    detail = "it broke the protocol: it sent file descriptors, which nobody has asked for"
    assert json.loads(done.stdout.splitlines()[-1]) == ["protocol_error", detail]

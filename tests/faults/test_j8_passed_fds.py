"""J8: a session that sends fds to the supervisor, such as sockets with SO_LINGER, whose close waits for a peer."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

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

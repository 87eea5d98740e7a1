"""Fds that came unasked, before Linux 6.16: all of them are closed, whatever they are."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from greenroom.system import passed_fds


@pytest.fixture
def older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(passed_fds.KERNEL_VARIABLE, "0")


@pytest.mark.usefixtures("older_kernel")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_came_is_closed(kind: str) -> None:
    near, far = socket.socketpair()
    passed_fds.refuse(near)
    pair = os.pipe() if kind == "pipe" else tuple(one.detach() for one in socket.socketpair())
    before = open_files()
    socket.send_fds(far, [b"data"], [pair[1]] * 3)
    assert passed_fds.receive(near.fileno(), 100) == (b"data", True)
    until_closed()
    assert open_files() == before
    passed_fds.close(near.detach())
    until_closed()
    assert len(open_files()) == len(before) - 1
    far.close()
    for fd in pair:
        os.close(fd)


def open_files() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def until_closed() -> None:
    for thread in threading.enumerate():
        if thread.name == "greenroom-close":
            thread.join()

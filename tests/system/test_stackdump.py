"""A stack dump that is none: a process that is to be killed may have put anything in its place."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from greenroom.system import stackdump


def test_what_cannot_be_read_like_a_file_holds_no_stacks() -> None:
    near, far = os.pipe()
    try:
        os.write(far, b"stacks")
        assert stackdump.read(near) == ""
    finally:
        os.close(near)
        os.close(far)


def test_a_dump_is_emptied_and_opened() -> None:
    fd = os.memfd_create("greenroom-stackdump")
    os.write(fd, b"stacks of before")
    dump = stackdump.open_of(os.getpid(), fd)
    try:
        assert stackdump.read(dump) == ""
        os.pwrite(fd, b"new stacks", 0)
        assert stackdump.read(dump) == "new stacks"
    finally:
        os.close(dump)
        os.close(fd)


def test_a_file_that_has_the_name_of_a_dump_is_not_opened(tmp_path: Path) -> None:
    """The path of a file in a mount that is nowhere begins at that mount, so it can look like that of a memfd."""
    (tmp_path / "memfd:greenroom-stackdump").write_text("not to be emptied")
    tree = _detached(tmp_path)
    fd = os.open("memfd:greenroom-stackdump", os.O_RDWR, dir_fd=tree)
    try:
        assert os.readlink(f"/proc/self/fd/{fd}") == "/memfd:greenroom-stackdump"
        with pytest.raises(FileNotFoundError, match="is not a stack dump"):
            stackdump.open_of(os.getpid(), fd)
    finally:
        os.close(fd)
        os.close(tree)
    assert (tmp_path / "memfd:greenroom-stackdump").read_text() == "not to be emptied"


def _detached(folder: Path) -> int:
    """A copy of a folder's mount that is mounted nowhere: open_tree(2) with OPEN_TREE_CLONE."""
    libc = ctypes.CDLL(None, use_errno=True)
    tree = libc.syscall(428, -100, bytes(folder), 1 | os.O_CLOEXEC)
    if tree < 0 and ctypes.get_errno() == errno.EPERM:
        pytest.skip("this needs CAP_SYS_ADMIN")
    assert tree >= 0, os.strerror(ctypes.get_errno())
    return int(tree)

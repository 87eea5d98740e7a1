"""A page that one process writes, and that its forks cannot change, whatever they try."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from greenroom.system.one_writer_page import OneWriterPage

ATTACKS = """
import ctypes, errno, mmap, os, sys
from greenroom.system.one_writer_page import OneWriterPage

libc = ctypes.CDLL(None, use_errno=True)
page = OneWriterPage()
page.write(b"first")

def mappings():
    lines = [line.split() for line in open("/proc/self/maps") if "greenroom-page" in line]
    return [int(line[0].partition("-")[0], 16) for line in lines], [line[1] for line in lines]

def protect():
    (place,), access = mappings()
    assert access == ["r--s"], access
    if libc.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(mmap.PAGESIZE), 3) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")

def memory():
    with open("/proc/self/mem", "r+b", buffering=0) as file:
        file.seek(mappings()[0][0])
        file.write(b"other")

def files():
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2]
    if not any("greenroom-page" in name for name in names):
        raise OSError(errno.ENOENT, "no fd of it is open")

if (pid := os.fork()) == 0:
    try:
        {"protect": protect, "memory": memory, "files": files}[sys.argv[1]]()
    except OSError as error:
        os._exit(error.errno)
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(status, page.read(5))
"""


def test_a_fork_reads_what_is_written_before_and_after() -> None:
    page = OneWriterPage()
    page.write(b"first")
    assert page.read(5) == b"first"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os._exit(0 if page.read(5) == b"later" else 1)
    page.write(b"later")
    os.write(write, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("attack", "error"), [("protect", errno.EACCES), ("memory", errno.EIO), ("files", errno.ENOENT)]
)
def test_a_fork_cannot_change_it(attack: str, error: int) -> None:
    done = subprocess.run([sys.executable, "-c", ATTACKS, attack], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == [str(error), "b'first'\n"]

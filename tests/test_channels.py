"""Channels of a process, made while the supervisor runs out of file descriptors."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from greenroom.system import passed_fds

PROGRAM = """
import json, os, resource, threading
from greenroom.pool.shell.channels import Channels

def open_files():
    return sorted(map(int, os.listdir("/proc/self/fd")))[:-1]  # without the one of the folder

def made(free):
    # Make channels where so many file descriptors are free. Return whether that worked, and what is left open.
    before = open_files()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 1 + free, hard))
    try:
        channels = Channels()
    except OSError:
        channels = None
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if channels is not None:
        channels.close()
    for thread in threading.enumerate():
        if thread.name == "greenroom-close":
            thread.join()
    return channels is not None, sorted(set(open_files()) - set(before))

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(json.dumps([made(free) for free in range(20)]))
"""


@pytest.mark.parametrize("kernel", ["", "0"])
def test_no_fd_stays_open_when_too_few_are_free(kernel: str) -> None:
    environment = {**os.environ, passed_fds.KERNEL_VARIABLE: kernel}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    worked = [works for works, _ in found]
    assert worked == sorted(worked)
    assert set(worked) == {False, True}
    assert [left for _, left in found] == [[]] * len(found)

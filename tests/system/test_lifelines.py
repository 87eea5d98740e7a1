"""The lifeline: whom the kernel signals when the supervisor's end is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

ARMED = """
import os, signal, sys, time
from greenroom.system import lifeline
fd = int(sys.argv[1])
os.setpgid(0, 0)
lifeline.arm(fd)
lifeline.keep_in_exec(fd)
"""


def ends_with(script: str) -> list[int]:
    """Run a script that arms its lifeline and writes a line; close the other end; return how its processes ended.

    The script prints the pids of others in its group, whose exit status it does not read.
    """
    far, near = os.pipe2(os.O_CLOEXEC)
    command = [sys.executable, "-c", ARMED + script, str(far)]
    with subprocess.Popen(command, pass_fds=(far,), stdout=subprocess.PIPE, text=True) as process:
        os.close(far)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.close(near)
        return [process.wait(), *map(int, process.stdout.read().split())]


def test_a_program_that_is_executed_is_killed() -> None:
    script = "print('ready', flush=True)\nos.execv('/bin/sleep', ['sleep', '1000'])"
    assert ends_with(script) == [-signal.SIGKILL]


def test_a_program_that_is_executed_with_a_closed_lifeline_is_not_killed() -> None:
    """Which shows what the test before depends on."""
    script = "os.closerange(3, 100)\nprint('ready', flush=True)\nos.execv('/bin/sleep', ['sleep', '0.3'])"
    assert ends_with(script) == [0]


@pytest.mark.parametrize("ignores", [False, True])
def test_the_rest_of_the_group_gets_sigterm(ignores: bool) -> None:
    """A resource tracker ignores it, and goes on. Who has left the group is not signalled."""
    script = f"""
lifeline.arm_for_group(fd)
reading, writing = os.pipe()
held, holding = os.pipe()
if os.fork() == 0:
    os.close(holding)
    member = os.fork()
    if member == 0:
        if {ignores}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writing, b"x")
        os.read(held, 1)  # until the leader is dead
        os._exit(7)
    os.setpgid(0, 0)
    os.write(writing, b"x")
    print(os.waitstatus_to_exitcode(os.waitpid(member, 0)[1]), flush=True)
    os._exit(0)
os.read(reading, 1)
os.read(reading, 1)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(1000)
"""
    assert ends_with(script) == [-signal.SIGKILL, 7 if ignores else -signal.SIGTERM]

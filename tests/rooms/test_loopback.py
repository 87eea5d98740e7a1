"""A machine that has no network but loopback: a network namespace of its own, where one may be made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.in_pairs

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]
LO_UP = """\
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", IFF_UP, b""))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_callers_hear_each_other_where_there_is_only_loopback(livekit_binary: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    if not shutil.which("unshare") or subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace may be made here")
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/rooms/test_server_fixture.py", "-k", "two_callers"]
    inside = [*NAMESPACE, sys.executable, "-c", LO_UP, *tests]
    done = subprocess.run(inside, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout

"""What holds without the walls around it: heartbeat pages, and the token in the supervisor.

The filter and the supervisor alone: :mod:`test_walls`, without Landlock. Reports of ends: :mod:`test_forged_reports`.
The control socket: :mod:`test_control_socket`, with walls off.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from walled import NOBODY, walled

pytestmark = pytest.mark.more

SPOILS = """
import asyncio
import ctypes
import os
import resource

from greenroom import App

app = App()
libc = ctypes.CDLL(None, use_errno=True)
libc.mremap.restype = ctypes.c_void_p
PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 400  # more than the file of a page has


def own_page():
    for line in open("/proc/self/maps"):
        if "greenroom-heartbeat" in line:
            return int(line.partition("-")[0], 16)


def copy_of(page, size):
    # A length of 0 copies a shared mapping, and leaves the old one where it is (mremap(2)).
    copy = libc.mremap(ctypes.c_void_p(page), ctypes.c_size_t(0), ctypes.c_size_t(size), 1)
    assert copy not in (None, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
    return copy


def enlarge():
    copy = copy_of(own_page(), PAGES * PAGE)
    for number in range(1, PAGES):
        ctypes.memset(copy + number * PAGE, 0xFF, PAGE)


def remap():
    copy, size, zero = ctypes.c_void_p(copy_of(own_page(), PAGE)), ctypes.c_size_t(PAGE), ctypes.c_int(0)
    for number in range(1, PAGES):
        result = libc.remap_file_pages(copy, size, zero, ctypes.c_size_t(number), zero)
        assert result == 0, os.strerror(ctypes.get_errno())
        ctypes.memset(copy, 0xFF, PAGE)


def fate_of(attack):
    # In a process of its own, which a page behind the end of the file kills.
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            attack()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def truncate():
    # The pages of all processes of this user.
    outcomes = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fds = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
            pages = [os.open(fd, os.O_RDWR) for fd in fds if "greenroom-heartbeat" in os.readlink(fd)]
        except OSError:  # of another user, or gone
            continue
        for page in pages:
            for size in (0, 1 << 30):
                try:
                    os.ftruncate(page, size)
                    outcomes.add("truncated")
                except PermissionError:
                    outcomes.add("refused")
            os.close(page)
    return sorted(outcomes)


@app.entrypoint
async def entrypoint(ctx):
    if "sleep" in ctx.job.metadata:
        await asyncio.sleep(3600)
    return [fate_of(enlarge), fate_of(remap), truncate()]
"""


def write_app(folder: Path, source: str) -> Path:
    path = folder / "app.py"
    path.write_text(source)
    return path


async def test_a_session_spoils_no_heartbeat_page_of_another_one(tmp_path: Path) -> None:
    """The other's page counts its lost log records: a spoilt page would claim many."""
    async with walled(NOBODY, "--walls", "off", app=write_app(tmp_path, SPOILS), has_victim=False) as worker:
        victim = await worker.start({"sleep": True})
        report = await worker.run({})
        assert report["result"] == [-signal.SIGBUS, -signal.SIGBUS, ["refused"]], report
        await worker.ask("DELETE", f"/v1/jobs/{victim['id']}")
        ended = (await worker.ask("GET", f"/v1/jobs/{victim['id']}?wait=60")).body["report"]
        assert (ended["reason"], ended["log_records_dropped"]) == ("cancelled", 0)


TOKEN = "a-token-of-some-length"
SEARCHES = f"""
import os

from greenroom import App

app = App()

def parent_of(pid):
    return int(open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[1])

@app.entrypoint
async def entrypoint(ctx):
    zygote = os.getppid()
    found = []
    for name, pid in (("itself", os.getpid()), ("zygote", zygote), ("supervisor", parent_of(zygote))):
        try:
            with open(f"/proc/{{pid}}/environ", "rb") as file:
                found += [name] * ({TOKEN.encode()!r} in file.read())
        except PermissionError:
            continue
    return found
"""


@pytest.mark.parametrize(
    ("walls", "limit", "found"),
    [("require", "", []), ("auto", "0", []), ("off", "", ["supervisor"])],
    ids=["all walls", "the supervisor's wall", "no walls"],
)
async def test_a_token_in_the_environment_is_not_for_sessions(
    walls: str, limit: str, found: list[str], tmp_path: Path
) -> None:
    env = {"GREENROOM_TOKEN": TOKEN, "LANDLOCK_ABI_LIMIT": limit}
    app = write_app(tmp_path, SEARCHES)
    async with walled(NOBODY, "--walls", walls, app=app, env=env, has_victim=False) as worker:
        worker.token = TOKEN
        assert (await worker.run({}))["result"] == found

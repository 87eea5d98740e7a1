"""Who gets the worker's token from its control socket: commands of its own user, and nothing that a session starts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import GREENROOM
from server.running_worker import RunningWorker
from walled import NOBODY, WITHOUT_CAPABILITIES, walled

from greenroom.cli.control_token import token_of_worker
from greenroom.server.control_socket import MOST_PEERS
from greenroom.system.control_address import control_address

pytestmark = pytest.mark.more
APP = Path(__file__).with_name("askers.py")
STRAIGHT_WAYS = ["itself", "program", "daemon"]
WAYS = [*STRAIGHT_WAYS, "dying", "handed_over", "forged", "in_namespaces"]
USERS = {"root without capabilities": WITHOUT_CAPABILITIES, "another user": NOBODY}


async def command(*arguments: str, user: tuple[str, ...] = ()) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *user, GREENROOM, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("walls", ["require", "off"])
@pytest.mark.parametrize("user", USERS)
async def test_no_session_gets_the_token(user: str, walls: str) -> None:
    async with walled(USERS[user], "--token", "required", "--walls", walls, app=APP) as worker:
        url = await worker.worker.url()
        got = {way: (await worker.run({"way": way, "url": url}))["result"] for way in WAYS}
        assert {way: token for way, token in got.items() if token} == {}
        code, token = await command("token", "--url", url, user=USERS[user])
        assert (code, token.strip()) == (0, worker.token)


@pytest.mark.parametrize(
    ("walls", "limit"),
    [("require", ""), ("off", ""), ("auto", "5")],
    ids=["walls", "without walls", "before Linux 6.12"],
)
async def test_no_session_of_another_worker_gets_the_token(walls: str, limit: str) -> None:
    """Of the same user. The wall for sockets is in its way, and without it the check of its ancestors."""
    async with (
        walled(NOBODY, "--token", "required", app=APP, has_victim=False) as asked,
        walled(NOBODY, "--walls", walls, app=APP, has_victim=False, env={"LANDLOCK_ABI_LIMIT": limit}) as other,
    ):
        url = await asked.worker.url()
        got = {way: (await other.run({"way": way, "url": url}))["result"] or None for way in STRAIGHT_WAYS}
        assert got == dict.fromkeys(STRAIGHT_WAYS)
        code, token = await command("token", "--url", url, user=NOBODY)
        assert (code, token.strip()) == (0, asked.token)


async def test_no_other_user_gets_the_token() -> None:
    async with walled(NOBODY, "--token", "required", app=APP, has_victim=False) as worker:
        url = await worker.worker.url()
        other = ("setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups")
        code, output = await command("token", "--url", url, user=other)
        assert (code, worker.token in output) == (1, False)
        # The command of another user does not even ask, so the worker is asked without it.
        program = "import socket, sys; from greenroom.cli import control_token as c; c.os.geteuid = lambda: 65534; "
        program += "print(c.token_of_worker(sys.argv[1]))"
        done = subprocess.run([*other, sys.executable, "-c", program, url], capture_output=True, text=True, check=True)
        assert done.stdout == "None\n"


async def test_a_command_does_not_greet_a_socket_of_another_user() -> None:
    program = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1]); "
    program += "s.listen(); print('listens', flush=True); c, _ = s.accept(); print(c.recv(99))"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *NOBODY,
        sys.executable,
        "-c",
        program.replace("sys.argv[1]", repr(control_address(port))),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"listens\n"
    assert await asyncio.to_thread(token_of_worker, f"http://127.0.0.1:{port}") is None
    assert await process.stdout.readline() == b"b''\n"
    await process.wait()


async def test_a_left_over_of_session_and_zygote_gets_nothing() -> None:
    async with walled(NOBODY, "--token", "required", "--walls", "off", app=APP, has_victim=False) as worker:
        url = await worker.worker.url()
        job = (await worker.start({"leave": True, "url": url}))["id"]
        zygote = (await worker.ask("GET", "/v1/pool")).body["zygote_pid"]
        assert job
        subprocess.run(["kill", "-9", str(zygote)], check=True)
        await worker.worker.logs("the zygote was lost|zygote .* was lost")
        (worker.folder / "go").touch()
        await asyncio.to_thread(_wait_for_end, worker.folder / "left")
        assert (worker.folder / "left").read_text().strip() == ""


def _wait_for_end(path: Path) -> None:
    """Wait until nobody has the file open: the process that writes to it has ended."""
    while subprocess.run(["fuser", "-s", str(path)], check=False).returncode == 0:
        pass


@contextlib.contextmanager
def silent_peer(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(address)  # waits if there are too many to be accepted
        peer.settimeout(30)
        yield peer


async def test_peers_are_bounded_and_a_silent_one_is_left() -> None:
    async with walled(NOBODY, "--token", "required", app=APP, has_victim=False) as worker:
        url = await worker.worker.url()
        address = control_address(int(url.rpartition(":")[2]))
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(silent_peer(address)) for _ in range(2 * MOST_PEERS)]
            for peer in peers:
                assert await asyncio.to_thread(peer.recv, 99) == b""  # closed: it said nothing for a second
        assert (await command("token", "--url", url, user=NOBODY))[0] == 0


async def test_what_is_no_greeting_is_refused() -> None:
    async with walled(NOBODY, "--token", "required", app=APP, has_victim=False) as worker:
        url = await worker.worker.url()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.settimeout(30)
            peer.connect(control_address(int(url.rpartition(":")[2])))
            peer.send(b"hello")
            answer = json.loads(await asyncio.to_thread(peer.recv, 999))
            assert answer == {"error": "this is not the greeting of a greenroom command"}


async def test_a_worker_that_is_pid_1_tells_commands_from_outside_and_no_session(tmp_path: Path) -> None:
    """As in a container: each process there descends from the worker, but for those that come from outside."""
    inside = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    options = ("agent.py", "--token", "required", "--num-idle-processes", "1", "--flight-recorder-dir", "off")
    shutil.copy(APP, tmp_path / "agent.py")
    async with RunningWorker(*options, wrapper=inside, cwd=tmp_path) as worker:
        url = await worker.url()
        assert (await command("token", "--url", url))[0] == 1  # of another pid namespace
        outside = ("nsenter", "--target", str(_first_of_namespace(worker.pid)), "--pid", "--mount")
        code, token = await command("token", "--url", url, user=outside)
        assert (code, len(token.strip())) == (0, 64)
        headers = {"Authorization": f"Bearer {token.strip()}"}
        body = {"metadata": {"way": "program", "url": url}}
        job = (await worker.ask("POST", "/v1/jobs", headers=headers, json=body)).body["id"]
        shown = await worker.ask("GET", f"/v1/jobs/{job}?wait=60", headers=headers)
        assert not shown.body["report"]["result"]


def _first_of_namespace(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_a_worker_elsewhere_is_not_asked() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as own:
        own.bind(control_address(65535))
        own.listen()
        own.setblocking(False)
        assert token_of_worker("http://192.0.2.1:65535") is None
        with pytest.raises(BlockingIOError):  # nobody has come
            own.accept()

"""Who needs no token on this machine: processes of the worker's user or of root, but nothing that a session starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from walled import NOBODY, WITHOUT_CAPABILITIES, Walled, walled

from greenroom.server.control_socket import MOST_PEERS
from greenroom.system.control_address import control_address

APP = Path(__file__).with_name("callers.py")
WAYS = ["itself", "program", "daemon", "dying", "handed_over", "hidden", "in_namespaces"]
USERS = {"root without capabilities": WITHOUT_CAPABILITIES, "another user": NOBODY}
OTHER_USER = ("setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups")
ASK = """
import sys, urllib.error, urllib.request
for _ in range(2):  # over two connections
    try:
        print(urllib.request.urlopen(sys.argv[1]).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""


async def victim_of(worker: Walled) -> str:
    """Start a session, and return the address at which it could be cancelled."""
    job = (await worker.start({"sleep": True}))["id"]
    return f"{await worker.worker.url()}/v1/jobs/{job}"


async def state_of(worker: Walled, victim: str) -> str:
    return str((await worker.ask("GET", f"/v1/jobs/{victim.rpartition('/')[2]}")).body["state"])


async def asked_as(user: tuple[str, ...], url: str) -> list[int]:
    process = await asyncio.create_subprocess_exec(
        *user, sys.executable, "-c", ASK, url, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return [int(line) for line in output.split()]


async def test_a_session_is_refused_where_its_operator_needs_no_token() -> None:
    async with walled(NOBODY, app=APP, has_victim=False) as worker:
        victim = await victim_of(worker)
        assert (await worker.run({"way": "itself", "url": victim}))["result"] == 401
        assert await asked_as(NOBODY, f"{await worker.worker.url()}/v1/pool") == [200, 200]
        assert await state_of(worker, victim) == "running"


@pytest.mark.more
@pytest.mark.parametrize("walls", ["auto", "off"])
@pytest.mark.parametrize("user", USERS)
async def test_no_session_is_let_in(user: str, walls: str) -> None:
    async with walled(USERS[user], "--walls", walls, app=APP, has_victim=False) as worker:
        victim = await victim_of(worker)
        ways = [*WAYS, "in_flight"] if USERS[user] is NOBODY else WAYS
        got = {way: (await worker.run({"way": way, "url": victim}))["result"] for way in ways}
        # Some kernels give an ordinary user no namespaces. The program in them does not run then.
        assert got.pop("in_namespaces") in (401, None)
        assert set(got.values()) == {401}, got
        assert await state_of(worker, victim) == "running"


@pytest.mark.more
@pytest.mark.parametrize("way", [*WAYS[:-1], "in_flight"])
async def test_with_token_off_each_way_succeeds(way: str) -> None:
    """The control of the tests before: what is refused there is not refused for another reason."""
    async with walled(NOBODY, "--token", "off", app=APP, has_victim=False) as worker:
        assert (await worker.run({"way": way, "url": await victim_of(worker)}))["result"] == 202


@pytest.mark.more
@pytest.mark.parametrize("walls", ["auto", "off"])
async def test_a_session_of_another_worker_is_refused(walls: str) -> None:
    async with (
        walled(NOBODY, app=APP, has_victim=False) as worker,
        walled(NOBODY, "--walls", walls, app=APP, has_victim=False) as other,
    ):
        worker.worker.has_nothing_to_do_with(other.worker.pid)
        victim = await victim_of(worker)
        got = {way: (await other.run({"way": way, "url": victim}))["result"] for way in ("itself", "program", "daemon")}
        assert set(got.values()) == {401}, got


@pytest.mark.more
async def test_a_worker_is_not_hidden_by_lines_that_name_its_socket() -> None:
    """The kernel lists names of sockets as they are. So a name can add lines, with the inode of another socket."""
    async with (
        walled(NOBODY, app=APP, has_victim=False) as worker,
        walled(NOBODY, "--walls", "off", app=APP, has_victim=False) as other,
    ):
        worker.worker.has_nothing_to_do_with(other.worker.pid)
        victim = await victim_of(worker)
        inode = _inode_at(control_address(await other.worker.port()))
        with ExitStack() as stack:
            for number in range(1, 9):
                decoy = control_address(number)
                line = f"0: 00000002 00000000 00010000 0005 01 {inode} @{decoy[1:]}"
                for name in (decoy, f"\0x\n{line}\n"):
                    sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                    sock.bind(name)
                    sock.listen(8)
            assert (await other.run({"way": "itself", "url": victim}))["result"] == 401


def _inode_at(address: str) -> int:
    lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    (inode,) = {int(line.split()[6]) for line in lines if line.endswith(f"@{address[1:]}") and " 00010000 " in line}
    return inode


@pytest.mark.more
async def test_a_worker_beside_it_that_stands_still_holds_up_nobody() -> None:
    """It accepts nothing, so it must not be asked again and again whose its control socket is."""
    async with walled(NOBODY, app=APP, has_victim=False) as still, walled(NOBODY, app=APP, has_victim=False) as worker:
        still.worker.has_nothing_to_do_with(worker.worker.pid)
        url = f"{await worker.worker.url()}/v1/pool"
        still.worker.signal(signal.SIGSTOP)
        for _ in range(2 * MOST_PEERS):
            assert await asked_as(NOBODY, url) == [200, 200]
        still.worker.signal(signal.SIGCONT)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_client_is_not_judged_by_the_next_one_at_its_port(is_reset: bool) -> None:
    """A session could reset its connection, and leave its port to an outsider before it is judged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("judge.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    with ExitStack() as stack:
        first = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        own_port = first.getsockname()[1]
        assert await process.stdout.readline() == b"accepted\n"
        if is_reset:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.close()
        second = stack.enter_context(socket.socket())
        second.bind(("127.0.0.1", own_port if is_reset else 0))
        second.connect(("127.0.0.1", port))
        assert await process.stdout.readline() == b"accepted\n"
        process.stdin.write(b"judge\n")
        assert await process.stdout.readline() == (b"False True\n" if is_reset else b"True True\n")
    assert await process.wait() == 0


@pytest.mark.more
@pytest.mark.parametrize("name", [b"x\n\ny", b"x\n: \xff @greenroom/control/1", b"greenroom/control/x"])
async def test_names_of_sockets_close_the_api_to_nobody(name: bytes) -> None:
    """Any user can bind any abstract name, and the kernel lists it as it is."""
    async with walled(NOBODY, app=APP, has_victim=False) as worker:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.bind(b"\0" + name)
            sock.listen(0)
            assert await asked_as(NOBODY, f"{await worker.worker.url()}/v1/pool") == [200, 200]


@pytest.mark.more
async def test_a_socket_that_does_not_tell_its_owner_closes_the_api_to_nobody() -> None:
    address = control_address(65535)
    async with walled(NOBODY, app=APP, has_victim=False) as worker:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, ExitStack() as stack:
            sock.bind(address)
            sock.listen(0)
            while True:  # until its queue is full
                peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
                try:
                    peer.connect(address)
                except BlockingIOError:
                    break
            assert await asked_as(NOBODY, f"{await worker.worker.url()}/v1/pool") == [200, 200]


@pytest.mark.more
async def test_what_outlives_the_zygote_is_refused() -> None:
    async with walled(NOBODY, "--walls", "off", app=APP, has_victim=False) as worker:
        victim = await victim_of(worker)
        job = (await worker.start({"way": "waiting", "url": victim}))["id"]
        os.kill((await worker.ask("GET", "/v1/pool")).body["zygote_pid"], signal.SIGKILL)
        await worker.worker.logs("zygote .*was lost")
        (worker.folder / "go").touch()
        shown = await worker.ask("GET", f"/v1/jobs/{job}?wait=60")
        assert shown.body["report"]["result"] == 401


@pytest.mark.more
async def test_another_user_of_the_machine_needs_the_token() -> None:
    async with walled(NOBODY, app=APP, has_victim=False) as worker:
        url = await worker.worker.url()
        assert await asked_as(OTHER_USER, f"{url}/v1/pool") == [401, 401]
        assert await asked_as(OTHER_USER, f"{url}/metrics") == [200, 200]


@pytest.mark.more
async def test_a_page_of_another_site_cannot_pass_as_a_local_client() -> None:
    """A browser is a local client. The page has pointed its own name to this machine."""
    async with walled(NOBODY, app=APP, has_victim=False) as worker:
        for more in ({}, {"Authorization": "Bearer not-the-token-of-this-worker"}):
            answer = await worker.worker.ask("GET", "/v1/pool", headers={"Host": "evil.example", **more})
            assert (answer.status, answer.error["type"]) == (403, "wrong_host")


@pytest.mark.more
async def test_who_needs_no_token_may_send_any() -> None:
    """Such as the token of a proxy, or that of a worker before this one."""
    async with walled(NOBODY, app=APP, has_victim=False) as worker:
        headers = {"Authorization": "Bearer not-the-token-of-this-worker"}
        assert (await worker.worker.ask("GET", "/v1/pool", headers=headers)).status == 200


@pytest.mark.more
async def test_with_required_everybody_needs_the_token() -> None:
    async with walled(NOBODY, "--token", "required", app=APP, has_victim=False) as worker:
        assert (await worker.worker.ask("GET", "/v1/pool")).status == 401
        assert (await worker.ask("GET", "/v1/pool")).status == 200


@pytest.mark.more
async def test_many_connections_at_once_are_judged() -> None:
    async with walled(NOBODY, app=APP, has_victim=False) as worker:
        url = f"{await worker.worker.url()}/v1/pool"
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def status() -> int:
                async with session.get(url) as answer:
                    return answer.status

            assert set(await asyncio.gather(*(status() for _ in range(200)))) == {200}

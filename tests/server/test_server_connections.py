"""Many connections: none of them, and no number of them, keeps sessions or other clients out."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from faults.stage import Stage
from hypothesis import given
from hypothesis import strategies as st
from raw_http import connect, open_fds, request
from running_worker import RunningWorker
from support import DEADLINE

from greenroom import PoolOptions
from greenroom.server.web.connections import Crowd, HeldBytes, network_of
from greenroom.settings.open_files import fds_needed, limits_of

MakeApp = Callable[[str], str]

NOOP = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""
LIVEZ = request("GET", "/livez")


async def test_idle_connections_keep_no_session_from_its_open_files(make_app: MakeApp) -> None:
    sessions, limit = 12, 500
    options = ("--num-idle-processes", "2", "--max-jobs", str(sessions), "--rate-limit", "off")

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    async with Stage(make_app) as stage, AsyncExitStack() as stack:
        worker = await stack.enter_async_context(RunningWorker(stage.app(), *options, preexec_fn=lower))
        port = await worker.port()
        for _ in range(limit + 50):
            await stack.enter_async_context(await connect(port))
        assert open_fds(worker.pid) < limit
        assert not [line for line in worker.lines if "max_jobs" in line]  # it fits, so all must start
        for number in range(sessions):
            answer = await worker.post("stay", timeout=DEADLINE)
            assert answer.status == 201, (number, answer)
        assert (await worker.get("/pressure")).body["running"] == sessions
        assert not [line for line in worker.lines if "Traceback" in line or "open files" in line.lower().split(":")[0]]
        for _ in range(sessions):
            (await stage.next("job")).order("leave")


async def test_the_one_that_is_idle_longest_goes_first(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "0", "--max-connections", "20", "--rate-limit", "off")
    async with RunningWorker(make_app(NOOP), *options) as worker, AsyncExitStack() as stack:
        port = await worker.port()
        await worker.get("/livez")  # the session of the test has a connection, too
        idle = [await stack.enter_async_context(await connect(port)) for _ in range(17)]
        for connection in [*idle[1:], idle[0]]:
            connection.send(LIVEZ)
            assert (await connection.answer()).status == 200
        half = await stack.enter_async_context(await connect(port))
        half.send(b"GET /livez HTTP/1.1\r\nHost: ")
        await worker.get("/livez")
        more = [await stack.enter_async_context(await connect(port)) for _ in range(17)]
        for connection in more:
            connection.send(LIVEZ)
            assert (await connection.answer()).status == 200
        for connection in idle[1:]:
            assert await connection.is_cut() == b""
        # Those that are left are answered.
        for connection in more:
            connection.send(LIVEZ)
            assert (await connection.answer()).status == 200
        assert (await worker.get("/livez")).status == 200


async def test_busy_connections_stay_and_leave_room_for_other_addresses(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "0", "--max-connections", "20", "--rate-limit", "off")
    async with RunningWorker(make_app(NOOP), *options) as worker, AsyncExitStack() as stack:
        port = await worker.port()
        streams = [await stack.enter_async_context(await connect(port)) for _ in range(18)]
        for stream in streams:
            stream.send(request("GET", "/v1/events"))
            async with asyncio.timeout(DEADLINE):
                assert (await stream.reader.readline()).split()[1] == b"200"
        async with await connect(port) as refused:
            answer = await refused.answer()
            assert (answer.status, answer.error["type"]) == (503, "too_many_connections")
            assert int(answer.headers["retry-after"]) >= 1
            assert await refused.is_cut() == b""
        for source in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            other = await stack.enter_async_context(await connect(port, source=source))
            other.send(LIVEZ)
            assert (await other.answer()).status == 200
        for stream in streams:
            async with asyncio.timeout(DEADLINE):
                await stream.reader.readuntil(b"event: Levels")
        await streams[0].__aexit__()
        async with asyncio.timeout(DEADLINE):
            while True:
                async with await connect(port) as again:
                    again.send(LIVEZ)
                    if (await again.answer()).status == 200:
                        break
        assert [line for line in worker.lines if "max_connections" in line]
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_a_crowd_from_one_address_pushes_out_its_own(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "0", "--max-connections", "20", "--rate-limit", "off")
    async with RunningWorker(make_app(NOOP), *options) as worker, AsyncExitStack() as stack:
        port = await worker.port()
        first = await stack.enter_async_context(await connect(port, source="127.0.0.2"))
        first.send(LIVEZ)
        assert (await first.answer()).status == 200
        for _ in range(100):
            await stack.enter_async_context(await connect(port))
        first.send(LIVEZ)
        assert (await first.answer()).status == 200


async def test_without_open_files_the_worker_waits_and_goes_on(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0") as worker, AsyncExitStack() as stack:
        port = await worker.port()
        await worker.get("/livez")
        before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        idle = [await stack.enter_async_context(await connect(port)) for _ in range(10)]
        for connection in idle:
            connection.send(LIVEZ)
            assert (await connection.answer()).status == 200
        taken = set(map(int, os.listdir(f"/proc/{worker.pid}/fd")))
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (min(set(range(max(taken) + 2)) - taken), before[1]))
        # Idle ones go for new ones here, too.
        for _ in range(3):
            new = await stack.enter_async_context(await connect(port))
            new.send(LIVEZ)
            assert (await new.answer()).status == 200
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
        assert (await worker.get("/livez")).status == 200
        await worker.logs("open files")
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_the_worker_says_what_its_limits_allow(make_app: MakeApp) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))

    options = ("--num-idle-processes", "0", "--max-jobs", "200", "--log-format", "json")
    async with RunningWorker(make_app(NOOP), *options, preexec_fn=lower) as worker:
        found = await worker.logs(r'"event": ?"limits".*')
        for field in ('"connections"', '"sessions"', '"fds"'):
            assert field in found.string
        assert "max_jobs=200" in (await worker.logs(r'"event": ?"too_few_fds".*')).string


class Peer:
    """A connection without a socket."""

    def __init__(self, network: str = "a", *, may_be_refused: bool = True) -> None:
        self.network, self.may_be_refused = network, may_be_refused
        self.is_refused = self.is_evicted = False

    def refuse(self) -> None:
        self.is_refused = True

    def evict(self) -> None:
        self.is_evicted = True


def test_a_busy_connection_goes_only_if_its_client_does_not_read() -> None:
    crowd, peers = Crowd(10), [Peer("b"), *(Peer() for _ in range(9))]
    for peer in peers:
        crowd.add(peer)
        crowd.busy(peer)
    assert not crowd.make_room("c", now=100.0)
    crowd.stuck(peers[0], now=50.0)
    crowd.stuck(peers[5], now=99.9)  # not long enough
    assert not crowd.make_room("a", now=100.0)  # it has its share, and the one that is stuck is another's
    assert crowd.make_room("c", now=100.0)
    assert [peer.is_evicted for peer in peers] == [True, *[False] * 9]
    crowd.moving(peers[5])
    crowd.add(Peer("c"))
    crowd.busy(peers[5])
    crowd.idle(peers[7])
    crowd.idle(peers[3])
    assert crowd.make_room("a", now=200.0)
    assert peers[7].is_evicted
    assert not peers[3].is_evicted


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=200), st.integers(1, 30))
def test_there_are_never_more_connections_than_may_be(arrivals: list[tuple[str, int]], most: int) -> None:
    crowd, there = Crowd(most), list[Peer]()
    for now, (network, act) in enumerate(arrivals):
        if crowd.make_room(network, float(now)):
            there.append(Peer(network))
            crowd.add(there[-1])
        there = [peer for peer in there if not peer.is_evicted]
        assert len(there) <= most
        assert sum(peer.network == network for peer in there) <= most - most // 10
        if there and act:
            (crowd.busy if act == 1 else crowd.idle)(there[now % len(there)])


def test_the_largest_of_those_that_wait_is_refused_and_a_small_request_never() -> None:
    held, needed, large, small = HeldBytes(100_000), Peer(may_be_refused=False), Peer(), Peer()
    held.add(needed, 60_000)
    held.add(large, 30_000)
    held.add(small, 200)
    assert not large.is_refused
    held.add(small, 15_000)
    assert large.is_refused
    held.add(needed, 100_000)  # it has just sent it, so it is told
    assert needed.is_refused
    keeping = [Peer(may_be_refused=False) for _ in range(2)]
    for peer in keeping:
        held.add(peer, 40_000)
    probe = Peer()
    held.add(probe, 16_000)
    assert not probe.is_refused
    newest = Peer()
    held.add(newest, 20_000)
    assert newest.is_refused
    for peer in keeping:
        held.release(peer, 40_100)
        assert held.of(peer) == 0
        assert not peer.is_refused


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_ipv6_client_cannot_be_many_by_its_own_addresses(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("files", [None, 100_000, 2_000, 1_024, 400, 100, 20])
@pytest.mark.parametrize("jobs", [1, 100, 1_000])
def test_sessions_come_before_connections_and_some_connections_before_the_last_session(
    files: int | None, jobs: int
) -> None:
    options = PoolOptions(max_jobs=jobs)
    limits = limits_of(files, options, 1_000)
    assert 1 <= limits.connections <= 1_000
    assert 0 <= limits.sessions <= jobs
    if files is None:
        assert (limits.connections, limits.sessions) == (1_000, jobs)
    elif limits.sessions == jobs:
        assert fds_needed(options) + limits.connections <= files
    else:
        assert limits.connections <= 32
        assert fds_needed(options) + limits.connections > files

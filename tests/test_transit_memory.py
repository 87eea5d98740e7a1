"""The budget for large messages: properties of its policy, and a channel that obeys it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given
from hypothesis import strategies as st

from greenroom.pool.shell.clock import AwakeClock
from greenroom.pool.shell.control import Control
from greenroom.pool.shell.transit import FREE, MODEST, PATIENCE, RESERVED, TOTAL, Share, TransitMemory
from greenroom.wire import messages as m

LARGEST = 65 * 1024 * 1024  # a header and a body, each as large as it may be


class Watch:
    """A real clock underneath the pool's, turned by hand."""

    def __init__(self) -> None:
        self.time = 100.0
        self.clock = AwakeClock(lambda: self.time)

    def turn(self, seconds: float) -> None:
        """In small steps: the pool's clock leaves out whatever looks like a pause."""
        for _ in range(int(seconds / 0.25) + 1):
            self.time += 0.25
            self.clock.advance()


sizes = st.one_of(st.integers(1, MODEST), st.integers(MODEST + 1, LARGEST))


@given(st.lists(st.tuples(st.sampled_from(["ask", "release"]), sizes, st.integers(0, 30)), max_size=60))
def test_what_is_held_never_passes_the_total_and_who_can_be_served_is(steps: list[tuple[str, int, int]]) -> None:
    transit = TransitMemory(Watch().clock)
    live: list[Share] = []
    grants: list[int] = []
    asked_later = 0
    for step, size, which in steps:
        if step == "ask":
            live.append(transit.ask(size, lambda: grants.append(1), lambda: None))
            asked_later += not live[-1].is_granted
        elif live:
            transit.release(live.pop(which % len(live)))
        held = [share for share in live if share.is_granted]
        waiting = [share for share in live if not share.is_granted]
        assert transit.held_bytes == sum(share.size for share in held) <= TOTAL
        huge = sum(share.size for share in held if not share.is_modest)
        assert huge <= TOTAL - RESERVED, "modest messages have bytes that no huge one takes"
        assert transit.waiting == len(waiting)
        assert len(grants) <= asked_later, "nobody is told twice, or of a grant that was there at once"
        # First come, first served; and the first of each sort waits only for lack of room.
        for is_modest, bound in ((True, TOTAL), (False, TOTAL - RESERVED)):
            queue = [share for share in waiting if share.is_modest is is_modest]
            assert not queue or transit.held_bytes + queue[0].size > bound
    for share in live:
        transit.release(share)
    assert (transit.held_bytes, transit.waiting) == (0, 0)


def test_a_modest_message_gets_through_beside_huge_ones_that_wait() -> None:
    transit = TransitMemory(Watch().clock)
    huge = [transit.ask(60 << 20, lambda: None, lambda: None) for _ in range(4)]
    assert [share.is_granted for share in huge] == [True, False, False, False]
    assert transit.ask(MODEST, lambda: None, lambda: None).is_granted


def test_an_unfinished_message_is_called_overdue_only_if_others_wait() -> None:
    watch, overdue = Watch(), list[str]()
    transit = TransitMemory(watch.clock)
    first = transit.ask(60 << 20, lambda: None, lambda: overdue.append("first"))
    done = transit.ask(1 << 20, lambda: None, lambda: overdue.append("done"))
    done.is_complete = True
    watch.turn(3 * PATIENCE)
    assert overdue == []
    second = transit.ask(60 << 20, lambda: None, lambda: overdue.append("second"))
    watch.turn(PATIENCE - 1)
    assert overdue == []
    watch.turn(2)
    assert overdue == ["first"]
    transit.release(first)
    assert second.is_granted


# --- a channel -----------------------------------------------------------------------------------


class Peer:
    """One child's channel: the supervisor's end, and a socket that plays the child."""

    def __init__(self, transit: TransitMemory) -> None:
        near, self.child = socket.socketpair()
        near.setblocking(False)
        self.child.setblocking(False)
        self.fd = near.detach()
        self.got: list[tuple[m.Message, int]] = []
        self.nonsense: list[str] = []
        self.waits: list[bool] = []
        self.control = Control(self.fd, transit, self._on_message, self.nonsense.append, self.waits.append)
        self.control.start()

    def _on_message(self, message: m.Message, body: bytes) -> None:
        self.got.append((message, len(body)))

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.child, data)


@contextmanager
def peers(count: int, transit: TransitMemory) -> Iterator[list[Peer]]:
    made = [Peer(transit) for _ in range(count)]
    try:
        yield made
    finally:
        for peer in made:
            peer.control.close()
            os.close(peer.fd)
            peer.child.close()


ENDED = m.Ended("completed", False)


async def turns(count: int = 50) -> None:
    """Let the loop read what there is."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_message_without_room_stays_with_its_child_and_arrives_later() -> None:
    transit = TransitMemory(Watch().clock, total=12 << 20, reserved=2 << 20)
    result = m.encode(ENDED, bytes(8 << 20))
    with peers(3, transit) as (first, second, small):
        await first.send(result[:-1])
        sending = asyncio.create_task(second.send(result))
        while not transit.waiting:
            await asyncio.sleep(0)
        await turns()
        assert not sending.done(), "the rest of it is not read"
        assert transit.held_bytes == len(result)
        # An acknowledgement, and a result that is smaller than what needs a share, are not held up.
        await small.send(m.encode(m.Started("job-1")) + m.encode(ENDED, bytes(FREE - 1024)))
        while len(small.got) < 2:
            await asyncio.sleep(0)
        await first.send(result[-1:])
        while not first.got:
            await asyncio.sleep(0)
        await turns()
        assert not second.got, "a result counts until its process has ended"
        first.control.close()
        await sending
        while not second.got:
            await asyncio.sleep(0)
        assert second.got == [(ENDED, 8 << 20)]
        assert [peer.nonsense for peer in (first, second, small)] == [[], [], []]
        assert [peer.waits for peer in (first, second, small)] == [[], [True, False], []]


async def test_a_child_that_stops_in_the_midst_of_a_message_is_dropped_if_others_wait() -> None:
    watch = Watch()
    transit = TransitMemory(watch.clock, total=12 << 20, reserved=2 << 20)
    result = m.encode(ENDED, bytes(8 << 20))
    with peers(2, transit) as (first, second):
        await first.send(result[:-1])
        sending = asyncio.create_task(second.send(result))
        while not transit.waiting:
            await asyncio.sleep(0)
        watch.turn(PATIENCE + 1)
        (complaint,) = first.nonsense
        assert "unfinished for 30 s, while other jobs waited" in complaint
        first.control.finish()  # it has been killed for it
        await sending
        while not second.got:
            await asyncio.sleep(0)
        assert second.nonsense == []


async def test_what_a_dead_child_had_sent_is_read_whatever_the_budget_says() -> None:
    transit = TransitMemory(Watch().clock, total=1 << 20, reserved=1 << 10)
    message = m.encode(ENDED, bytes(FREE + 1))
    with peers(2, transit) as (holder, dead):
        holder_share = transit.ask(1 << 20, lambda: None, lambda: None)
        dead.child.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        dead.child.send(message)
        while not transit.waiting:
            await asyncio.sleep(0)
        dead.child.close()
        dead.control.finish()
        assert dead.got == [(ENDED, FREE + 1)]
        assert transit.waiting == 0
        transit.release(holder_share)
        assert holder.got == []


async def test_a_body_that_its_message_cannot_have_is_refused_before_it_is_read() -> None:
    transit = TransitMemory(Watch().clock)
    with peers(1, transit) as (peer,):
        data = bytearray(m.encode(m.Started("job-1")))
        data[8:12] = (60 << 20).to_bytes(4, "big")
        await peer.send(bytes(data))
        while not peer.nonsense:
            await asyncio.sleep(0)
        assert "Started with a body of 62914560 bytes; at most 0 are allowed" in peer.nonsense[0]
        assert transit.held_bytes == 0


async def test_a_message_that_makes_no_sense_gives_its_room_back() -> None:
    transit = TransitMemory(Watch().clock)
    with peers(1, transit) as (peer,):
        data = m.encode(ENDED, bytes(8 << 20)).replace(b'"told"', b'"gold"')
        await peer.send(data)
        while not peer.nonsense:
            await asyncio.sleep(0)
        peer.control.finish()
        peer.control.close()
        assert (transit.held_bytes, transit.waiting) == (0, 0)


async def test_of_a_dead_child_is_read_what_was_there_when_it_died() -> None:
    """Its end of the channel may be held by a process that it has left behind, and that goes on writing."""
    transit = TransitMemory(Watch().clock)
    with peers(1, transit) as (peer,):
        for number in range(3):
            peer.child.send(m.encode(m.Started(f"job-{number}")))
        written = iter(range(3, 100))
        pass_on = peer.control._on_message

        def write_one_more(message: m.Message, body: bytes) -> None:
            pass_on(message, body)
            if (number := next(written, None)) is not None:
                peer.child.send(m.encode(m.Started(f"job-{number}")))

        peer.control._on_message = write_one_more
        peer.control.finish()
        assert [message for message, _ in peer.got] == [m.Started(f"job-{number}") for number in range(3)]

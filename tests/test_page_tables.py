"""Reads of page tables: a process whose memory map is locked holds up no other."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from support import DEADLINE, eventually

from greenroom.pool.shell.clock import AwakeClock
from greenroom.pool.shell.page_tables import PageTables

LOCKED = 1
SOON = 1.0


class Lock:
    """Stands in for the lock of a memory map: a read of ``LOCKED`` waits until it is opened."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.reads: list[int] = []

    def read(self, pid: int) -> int:
        self.reads.append(pid)
        if pid == LOCKED:
            os.read(self._read, 1)
        return 10 * pid

    def open(self) -> None:
        os.write(self._write, b"x")

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@contextmanager
def reader(patience: float) -> Iterator[tuple[PageTables, Callable[[], int]]]:
    """Yield a reader, and a function that counts its threads."""
    before, clock = set(threading.enumerate()), AwakeClock()
    clock.start()
    try:
        with closing(PageTables(clock, patience)) as tables:
            yield tables, lambda: len(set(threading.enumerate()) - before)
    finally:
        clock.stop()


async def test_a_locked_process_holds_up_no_other() -> None:
    with closing(Lock()) as lock, reader(SOON) as (tables, threads):
        locked, *others = [tables.run(lock.read, pid) for pid in (LOCKED, 2, 3)]
        with pytest.raises(TimeoutError, match="locked"):
            await locked
        async with asyncio.timeout(DEADLINE):
            assert await asyncio.gather(*others) == [20, 30]
        lock.open()
        await eventually(lambda: threads() == 1, "the thread that was left behind ends")
    await eventually(lambda: threads() == 0, "the end of the thread")


async def test_one_thread_waits_for_a_locked_process_until_it_is_open() -> None:
    with closing(Lock()) as lock, reader(SOON) as (tables, threads):
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await tables.run(lock.read, LOCKED)
        assert await tables.run(lock.read, 2) == 20
        assert lock.reads == [LOCKED, 2]
        assert threads() == 2
        lock.open()
        await eventually(lambda: threads() == 1, "the thread that was left behind ends")
        await asyncio.sleep(0)  # it has told the event loop before
        reading = tables.run(lock.read, LOCKED)
        lock.open()
        assert await reading == 10
    await eventually(lambda: threads() == 0, "the end of the thread")


async def test_a_slow_read_is_waited_for() -> None:
    with closing(Lock()) as lock, reader(DEADLINE) as (tables, threads):
        readings = [tables.run(lock.read, pid) for pid in (LOCKED, 2)]
        await eventually(lambda: lock.reads == [LOCKED], "the read")
        lock.open()
        assert await asyncio.gather(*readings) == [10, 20]
        assert threads() == 1
    await eventually(lambda: threads() == 0, "the end of the thread")


async def test_an_error_is_passed_on() -> None:
    def fail(pid: int) -> int:
        raise ProcessLookupError(pid)

    with reader(DEADLINE) as (tables, threads):
        with pytest.raises(ProcessLookupError):
            await tables.run(fail, 2)
        with pytest.raises(ProcessLookupError):
            await tables.run_in_spare_time(fail, 2)
        assert await tables.run(lambda pid: pid, 3) == 3
    await eventually(lambda: threads() == 0, "the end of the thread")


async def test_after_the_end_nothing_is_read() -> None:
    with closing(Lock()) as lock, reader(DEADLINE) as (tables, threads):
        readings = [tables.run(lock.read, pid) for pid in (LOCKED, 2)]
        await eventually(lambda: lock.reads == [LOCKED], "the read")
        tables.close()
        assert readings[1].cancelled()
        with pytest.raises(RuntimeError, match="closed"):
            await tables.run(lock.read, 3)
        lock.open()
        assert await readings[0] == 10
    await eventually(lambda: threads() == 0, "the end of the thread")


async def test_reads_that_can_wait_have_a_budget() -> None:
    with reader(DEADLINE) as (tables, threads):
        assert tables.has_spare_time()
        await tables.run(_take_cpu_time, 2)
        assert tables.has_spare_time()
        await tables.run_in_spare_time(_take_cpu_time, 2)
        assert not tables.has_spare_time()
    await eventually(lambda: threads() == 0, "the end of the thread")


def _take_cpu_time(pid: int) -> None:
    begin = time.thread_time()
    while time.thread_time() < begin + 0.2:
        sum(range(1000))

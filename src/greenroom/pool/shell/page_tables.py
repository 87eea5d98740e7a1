"""Thread that reads the page tables of processes, with its budget of CPU time and its patience.

A walk through the page tables takes milliseconds, so it is not made on the event loop. It also waits for the memory map
of the process (mmap_lock), which a session can keep locked by a file system of its own (FUSE). So a thread that does
not return is left behind, and another one reads the other processes. No second thread waits for the same process.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

from ...token_bucket import TokenBucket
from .clock import AwakeClock, Timer

__all__ = ["PageTables"]

SHARE = 0.02
"""CPU time of the thread, as a part of one CPU. Only reads that can wait are bound by it."""
AT_ONCE = 0.1
"""CPU seconds that are saved up at most."""
PATIENCE = 5.0
"""Seconds after which a thread that reads one process is left behind."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Reading:
    """One read of a process: what to call, and the future of its result."""

    read: Callable[[int], Any]
    pid: int
    is_charged: bool
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    future: asyncio.Future[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.future = self.loop.create_future()

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Thread(threading.Thread):
    """Thread that makes one read at a time. It is a daemon: the exit of the program does not wait for it."""

    def __init__(self) -> None:
        super().__init__(name="greenroom-page-tables", daemon=True)
        self._orders: SimpleQueue[tuple[_Reading, Callable[..., object]] | None] = SimpleQueue()

    def order(self, reading: _Reading, then: Callable[..., object]) -> None:
        """Read. ``then`` gets the thread, the reading, its result, its error and its CPU seconds, on the event loop."""
        self._orders.put((reading, then))

    def end(self) -> None:
        """End after the present read."""
        self._orders.put(None)

    def run(self) -> None:
        while (order := self._orders.get()) is not None:
            reading, then = order
            result, failure, begin = None, None, time.thread_time()
            try:
                result = reading.read(reading.pid)
            except Exception as error:
                failure = error
            seconds = time.thread_time() - begin
            with suppress(RuntimeError):  # the loop is closed
                reading.loop.call_soon_threadsafe(then, self, reading, result, failure, seconds)


class PageTables:
    """Reader of page tables. ``patience`` is in seconds on the clock of the pool.

    Reads that can wait have a budget of CPU time. A read that must come soon is made in any case, such as one of a
    process near its memory limit.
    """

    def __init__(self, clock: AwakeClock, patience: float = PATIENCE) -> None:
        self._clock = clock
        self._patience = patience
        self._budget = TokenBucket(SHARE, AT_ONCE)
        self._waiting = deque[_Reading]()
        self._present: _Reading | None = None
        self._timer: Timer | None = None
        self._stuck: dict[_Thread, int] = {}
        """Threads that were left behind, and the processes that they still wait for."""
        self._thread: _Thread | None = None
        self._is_closed = False
        with suppress(RuntimeError):  # no thread can be started; a later call tries again
            self._start()  # now: in a fork storm, no thread can be started

    def has_spare_time(self) -> bool:
        """Return true if there is CPU time for a read that can wait."""
        return self._budget.left() > 0

    def run(self, read: Callable[[int], T], pid: int) -> asyncio.Future[T]:
        """Call ``read(pid)`` in the thread.

        The future has ``TimeoutError`` if the process cannot be read in time, and ``RuntimeError`` if no thread can be
        started.
        """
        return self._run(_Reading(read, pid, is_charged=False))

    def run_in_spare_time(self, read: Callable[[int], T], pid: int) -> asyncio.Future[T]:
        """Do as :meth:`run`, and charge the CPU time. Ask :meth:`has_spare_time` first."""
        return self._run(_Reading(read, pid, is_charged=True))

    def close(self) -> None:
        """End the thread after its present read."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.end()
            self._thread = None
        while self._waiting:
            self._waiting.popleft().future.cancel()

    def _run(self, reading: _Reading) -> asyncio.Future[Any]:
        if self._is_closed:
            reading.fail(RuntimeError("the reader of page tables is closed"))
        elif reading.pid in self._stuck.values():
            reading.fail(_locked(reading.pid))
        else:
            self._waiting.append(reading)
            self._go_on()
        return reading.future

    def _start(self) -> None:
        thread = _Thread()
        thread.start()
        self._thread = thread

    def _go_on(self) -> None:
        """Give the next read to the thread, if it has none."""
        while self._present is None and self._waiting:
            reading = self._waiting.popleft()
            try:
                if self._thread is None:
                    self._start()
            except RuntimeError as error:
                reading.fail(error)
                continue
            assert self._thread is not None
            self._present = reading
            self._timer = self._clock.call_later(self._patience, self._leave_behind)
            self._thread.order(reading, self._returned)

    def _returned(
        self, thread: _Thread, reading: _Reading, result: Any, failure: Exception | None, seconds: float
    ) -> None:
        if reading.is_charged:
            # One long look must not use up the budget of an hour.
            self._budget.spend(min(seconds, self._budget.left() + AT_ONCE))
        if failure is not None:
            reading.fail(failure)
        elif not reading.future.done():
            reading.future.set_result(result)
        if self._stuck.pop(thread, None) is None:
            assert self._timer is not None
            self._timer.cancel()
            self._present = None
            self._go_on()

    def _leave_behind(self) -> None:
        thread, reading = self._thread, self._present
        assert thread is not None
        assert reading is not None
        self._stuck[thread] = reading.pid
        thread.end()
        self._thread = self._present = None
        reading.fail(_locked(reading.pid))
        self._go_on()


def _locked(pid: int) -> TimeoutError:
    return TimeoutError(f"the memory map of process {pid} is locked")

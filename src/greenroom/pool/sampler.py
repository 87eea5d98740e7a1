"""Looks, a process at a time, at the memory that processes have to themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from ..system import proc
from .cost import SessionCost
from .events import EventBus, MemorySampled
from .process import Process
from .states import State

__all__ = ["MemorySampler"]


class MemorySampler:
    """Walking the page tables of a process takes a millisecond or so: one idle and one running process a turn."""

    def __init__(self, events: EventBus) -> None:
        self.cost = SessionCost()
        self._events = events
        self._turns: dict[State, deque[str]] = {State.IDLE: deque(), State.RUNNING: deque()}

    def look(self, processes: Callable[[State], Collection[Process]]) -> None:
        """Sample the process of each kind whose turn it is."""
        for state, turns in self._turns.items():
            there = {process.id: process for process in processes(state)}
            if not turns:
                turns.extend(there)
            while turns:
                process = there.get(turns.popleft())
                if process is not None:
                    self._sample(process, state)
                    break

    def _sample(self, process: Process, state: State) -> None:
        try:
            private = proc.private_mb(process.live_pid)
        except OSError:
            return  # gone, or run as another user; what is not known is not counted
        if state is State.IDLE:
            self.cost.sampled_idle(private)
        else:
            self.cost.sampled_running(process.id, private)
        self._events.publish(MemorySampled(process.id, process.live_pid, state.value, round(private, 3)))

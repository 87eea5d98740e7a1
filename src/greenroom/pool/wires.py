"""Everything that connects the supervisor with one child, as one thing."""

from __future__ import annotations

from collections.abc import Callable

from ..system.heartbeat import Beats
from ..wire import messages as m
from .budgets import Allowance
from .channels import Channels
from .control import Control
from .output import LogCapture, Loss, Outlet, OutputLine, StreamCapture
from .transit import TransitMemory

__all__ = ["Wires"]


class Wires:
    """The control channel, and the output of a child. Raises ``OSError`` when there are no fds for them."""

    def __init__(
        self,
        transit: TransitMemory,
        on_message: Callable[[m.Message, bytes], object],
        on_nonsense: Callable[[str], object],
        on_wait: Callable[[bool], object],
    ) -> None:
        self._channels = Channels()
        self._control = Control(self._channels.control, transit, on_message, on_nonsense, on_wait)
        self._captures: list[StreamCapture | LogCapture] = []
        self._outlet: Outlet | None = None
        self.send = self._control.send

    def beats(self) -> Beats:
        """Read the child's heartbeat page; not after :meth:`close`."""
        return self._channels.heartbeat.read()

    def tell_of_signal(self, now: float) -> None:
        """Tell the child by its heartbeat page; not after :meth:`close`."""
        self._channels.heartbeat.tell_of_signal(now)

    @property
    def child_ends(self) -> tuple[int, ...]:
        """The fds that go to the child, in the order of the wire."""
        return self._channels.child_ends

    def close_child_ends(self) -> None:
        self._channels.close_child_ends()

    def open(self, emit: Callable[[OutputLine | Loss], object], pool: Allowance) -> None:
        """The child is there: listen to it."""
        outlet = self._outlet = Outlet(emit, pool)
        self._captures = [
            StreamCapture(self._channels.stdout, "stdout", outlet),
            StreamCapture(self._channels.stderr, "stderr", outlet),
            LogCapture(self._channels.log, outlet),
        ]
        self._control.start()

    def finish(self) -> None:
        """The child is dead: take in what it had sent before, which still counts."""
        self._control.finish()
        for capture in self._captures:
            capture.finish()
        if self._outlet is not None:
            self._outlet.finish()

    @property
    def dropped(self) -> int:
        """Lines and records that were read, but not passed on, or not whole."""
        return 0 if self._outlet is None else self._outlet.dropped

    def cut_lifeline(self) -> None:
        """Have the kernel kill whatever holds the other end, or will."""
        self._channels.cut_lifeline()

    def close(self) -> None:
        self._control.close()
        self._captures.clear()
        self._channels.close()

"""Everything that connects the supervisor with one child, as one thing."""

from __future__ import annotations

from collections.abc import Callable

from ..system.heartbeat import Beats
from ..wire import messages as m
from .channels import Channels
from .control import Control
from .output import Budget, LogCapture, OutputLine, StreamCapture
from .transit import TransitMemory

__all__ = ["Wires"]

_LINES_PER_SECOND, _BURST = 200.0, 1000.0


class Wires:
    """The control channel, and the output of a child. Raises ``OSError`` when there are no fds for them."""

    def __init__(
        self,
        transit: TransitMemory,
        on_message: Callable[[m.Message, bytes], object],
        on_nonsense: Callable[[str], object],
    ) -> None:
        self._channels = Channels()
        self._control = Control(self._channels.control, transit, on_message, on_nonsense)
        self._captures: list[StreamCapture | LogCapture] = []
        self.send = self._control.send

    def beats(self) -> Beats:
        """Read the child's heartbeat page; not after :meth:`close`."""
        return self._channels.heartbeat.read()

    @property
    def child_ends(self) -> tuple[int, ...]:
        """The fds that go to the child, in the order of the wire."""
        return self._channels.child_ends

    def close_child_ends(self) -> None:
        self._channels.close_child_ends()

    def open(self, emit: Callable[[OutputLine], object], budget: Budget) -> None:
        """The child is there: listen to it."""
        own_budget = Budget(_LINES_PER_SECOND, _BURST, budget)
        self._captures = [
            StreamCapture(self._channels.stdout, "stdout", emit, own_budget),
            StreamCapture(self._channels.stderr, "stderr", emit, own_budget),
            LogCapture(self._channels.log, emit, own_budget),
        ]
        self._control.start()

    def finish(self) -> None:
        """The child is dead: take in what it had sent before, which still counts."""
        self._control.finish()
        for capture in self._captures:
            capture.finish()

    @property
    def dropped(self) -> int:
        """Lines and records that were read, but not passed on."""
        return sum(capture.dropped for capture in self._captures)

    def cut_lifeline(self) -> None:
        """Have the kernel kill whatever holds the other end, or will."""
        self._channels.cut_lifeline()

    def close(self) -> None:
        self._control.close()
        self._captures.clear()  # they refer to the process, which refers to these wires
        self._channels.close()

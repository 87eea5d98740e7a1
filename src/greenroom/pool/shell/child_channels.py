"""Connections between the supervisor and one child, in one object."""

from __future__ import annotations

from collections.abc import Callable

from ...system.heartbeat import Beats, HeartbeatReader
from ...wire import messages as m
from .channels import Channels
from .control import Control
from .log_allowance import LogAllowance
from .output import LogCapture, Loss, Outlet, OutputLine, StreamCapture
from .transit import TransitMemory

__all__ = ["ChildChannels"]


class ChildChannels:
    """Control channel, output, lifeline and heartbeat page of a child. Raises ``OSError`` if no fds are left."""

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
        """Read the child's heartbeat page. Not to be called after :meth:`close`."""
        return self._channels.heartbeat.read()

    @property
    def heartbeat(self) -> HeartbeatReader:
        """The child's heartbeat page. Not to be used after :meth:`close`."""
        return self._channels.heartbeat

    def note_signal(self, now: float) -> None:
        """Note in the child's heartbeat page that the supervisor got a signal to end, at ``now`` (monotonic).

        Not to be called after :meth:`close`.
        """
        self._channels.heartbeat.note_signal(now)

    @property
    def child_ends(self) -> tuple[int, ...]:
        """Fds that go to the child, in the order of :data:`~greenroom.wire.messages.CHILD_FDS`."""
        return self._channels.child_ends

    def close_child_ends(self) -> None:
        """Close these fds: the request to fork is sent, and carries copies of them."""
        self._channels.close_child_ends()

    def open(self, emit: Callable[[OutputLine | Loss], object], pool: LogAllowance) -> None:
        """Start to read from a child that exists now."""
        outlet = self._outlet = Outlet(emit, pool)
        self._captures = [
            StreamCapture(self._channels.stdout, "stdout", outlet),
            StreamCapture(self._channels.stderr, "stderr", outlet),
            LogCapture(self._channels.log, outlet, self._control.complain),
        ]
        self._control.start()

    def finish(self) -> None:
        """Read the data that a dead child sent before its death. These data still count."""
        self._control.finish()
        for capture in self._captures:
            capture.finish()
        if self._outlet is not None:
            self._outlet.finish()

    @property
    def dropped(self) -> int:
        """Number of lines and records that were read, but were not passed on, or were cut."""
        return 0 if self._outlet is None else self._outlet.dropped

    def cut_lifeline(self) -> None:
        """Close our end of the lifeline. The kernel kills each process that has armed the other end, or will arm it."""
        self._channels.cut_lifeline()

    def close(self) -> None:
        self._control.close()
        self._captures.clear()
        self._channels.close()

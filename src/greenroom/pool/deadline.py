"""The one deadline that a process has in its present state."""

from __future__ import annotations

from collections.abc import Callable

from .clock import AwakeClock, Timer

__all__ = ["Deadline"]


class Deadline:
    """A call to be made later, unless another one takes its place. While it is held, its time stands still."""

    def __init__(self, clock: AwakeClock) -> None:
        self._clock = clock
        self._timer: Timer | None = None
        self._is_held = False
        self._left = 0.0
        """Seconds that are left when the hold ends."""
        self._fn: Callable[..., object] | None = None
        self._args: tuple[object, ...] = ()

    def set(self, seconds: float, fn: Callable[..., object], *args: object) -> None:
        """Call ``fn`` in so many seconds, instead of what was to be called."""
        self.clear()
        self._left, self._fn, self._args = seconds, fn, args
        if not self._is_held:
            self._run()

    def clear(self) -> None:
        """Call nothing."""
        self._stop()
        self._fn, self._args = None, ()

    def hold(self) -> None:
        """Let its time stand still, and that of each deadline that is set until :meth:`go_on`."""
        if not self._is_held:
            self._is_held = True
            if self._timer is not None:
                self._left = max(self._timer.when - self._clock.now(), 0.0)
            self._stop()

    def go_on(self) -> None:
        """Let its time go on."""
        if self._is_held:
            self._is_held = False
            self._run()

    def _run(self) -> None:
        if self._fn is not None:
            self._timer = self._clock.call_later(self._left, self._call)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call(self) -> None:
        fn, args = self._fn, self._args
        self.clear()
        if fn is not None:
            fn(*args)

"""A process that is kept for a session between its offer and its order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import GreenroomError, LaunchError, fresh
from ..job import Accept, Job, Reject
from ..options import checked_seconds
from ..wire import payload
from .exits import Decision
from .launch import JobHandle, JobState, Launch

if TYPE_CHECKING:
    from .fleet import Fleet

__all__ = ["Reservation"]


class Reservation:
    """Ends in one of three ways: :meth:`launch`, :meth:`release`, or ``reservation_timeout``, after which
    :meth:`launch` raises. If the process dies meanwhile, the next one takes its place."""

    def __init__(self, launch: Launch, fleet: Fleet, cancel: Callable[[Launch, Decision], None]) -> None:
        self._launch = launch
        self._fleet = fleet
        self._cancel = cancel

    def __repr__(self) -> str:
        return f"<Reservation {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self._launch.job_id

    @property
    def pid(self) -> int | None:
        """The process that is kept; ``None`` while a lost one is being replaced, and when it is over."""
        return self._launch.process.pid if self._launch.process else None

    @property
    def state(self) -> JobState:
        return self._launch.state

    async def ask(self) -> Accept | Reject:
        """What the app's ``request`` function says; ``Accept`` if there is none.

        It runs in the reserved process and has ``request_timeout`` seconds. If it is late, raises, or crashes,
        that is a :class:`Reject` that says so. A :class:`Reject` releases the process.
        """
        if not self._fleet.facts.has_request:
            return Accept()
        if not self._launch.is_held or self._launch.answer is not None:
            raise GreenroomError(f"the app was asked about job {self.id} before, or its reservation is over")
        try:
            asked = self._fleet.jobs.ask(self._launch, self._fleet.options.request_timeout)
            answer, body = await asyncio.shield(asked)
            if answer.accepted and self._launch.given_up is not None:
                raise fresh(self._launch.given_up)  # in the moment between the two
            return Accept(payload.decode(body)) if answer.accepted else Reject(answer.reason, final=answer.final)
        except BaseException:
            self.release("the one who asked has gone")
            raise

    def launch(self, metadata: Any = None, *, timeout: float | None = None) -> JobHandle:
        """Order the job to start; see :meth:`JobHandle.started`.

        ``metadata`` (or that of a :class:`Job`) replaces what was offered, unless it is ``None``; ``timeout`` is in
        seconds, by default ``launch_timeout``. Raises :class:`LaunchError` when the reservation is over.
        """
        fleet = self._fleet
        timeout = fleet.options.launch_timeout if timeout is None else checked_seconds("timeout", timeout)
        encoded = metadata.payload if isinstance(metadata, Job) else payload.encode(metadata)
        fleet.jobs.order(self._launch, None if metadata is None else encoded, timeout)
        return JobHandle(self._launch, self._cancel)

    def release(self, reason: str = "") -> None:
        """Let the process go back to the idle ones. After :meth:`launch`, or again, it does nothing."""
        self._fleet.jobs.release(self._launch, LaunchError(f"job {self.id} was not started: {reason or 'released'}"))

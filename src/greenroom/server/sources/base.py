"""What a source of sessions is to the worker."""

from __future__ import annotations

from typing import Any, Protocol

from ..admission import Admission

__all__ = ["Source"]


class Source(Protocol):
    """How sessions arrive, are offered, are accepted or turned down, and how their end is told back.

    A source makes an :class:`~greenroom.server.admission.Offer` of whatever arrives, and gives it to
    :meth:`Admission.offer`. It is answered within ``offer_timeout``: by an acceptance, against a process that is
    reserved from that moment on, or by :class:`~greenroom.NoCapacity` with the reason. The offer's labels say what the
    session is called there: they stand in all that is told of it. The acceptance is then
    started, which gives a :class:`~greenroom.JobHandle` to wait for the end with, or released.
    """

    @property
    def name(self) -> str:
        """As metrics, events and logs show it."""

    def status(self) -> dict[str, Any]:
        """What an operator should know of it, as plain data: above all its ``state``, in a word."""

    async def open(self, admission: Admission) -> None:
        """Begin to take sessions. Called once the pool is warm; cancelled if the worker ends, or if it takes too long.

        Raises :class:`GreenroomError` if it can take none, as things are set up.
        """

    def pause(self) -> None:
        """The worker drains: see to it that no more arrive. What was accepted goes on, and its end is told."""

    async def close(self) -> None:
        """The last job has ended. Called also if the source was never opened; cancelled if it takes too long."""

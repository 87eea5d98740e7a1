"""News for the app's resident process: the start and registrations of the worker, and its jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ....sources import ResidentProcess
from ..job_order import JOB, STARTED, WORKER, Order
from .livekit_connection import Connection

__all__ = ["WorkerNews"]


class WorkerNews:
    """News of one worker, kept up to date. ``find_orders`` returns the launched jobs that have not ended, by id."""

    def __init__(self, resident: ResidentProcess, find_orders: Callable[[], Mapping[str, Order]]) -> None:
        self._resident = resident
        self._find_orders = find_orders
        self._jobs: set[str] = set()

    @property
    def active(self) -> int:
        """Number of jobs that the resident process knows; 0 if the app declares no handler for them."""
        return len(self._jobs)

    def started(self) -> None:
        """Report that the worker takes jobs from now on."""
        self._resident.set_news(WORKER, STARTED, b"")

    def registered(self, connection: Connection) -> None:
        """Report that a server has registered the worker, for the first time or again."""
        self._resident.set_news(WORKER, str(connection.registration), connection.response)

    def lost(self, connection: Connection) -> None:
        """Withdraw the news of a registration, which is void."""
        self._resident.drop_news(WORKER, str(connection.registration))

    def launched(self, job_id: str, order: Order) -> None:
        """Report a launched job. Encodes nothing if the app declares no handler."""
        if self._resident.takes(JOB):
            self._jobs.add(job_id)
            self._resident.set_news(JOB, job_id, order.encode())

    def ended(self, job_id: str) -> None:
        """Report the end of a job."""
        if job_id in self._jobs:
            self._jobs.discard(job_id)
            self._resident.drop_news(JOB, job_id)

    def reset(self) -> None:
        """Start anew for other code that serves. It may declare a handler for jobs, unlike the code before."""
        if not self._resident.takes(JOB):
            for job_id in list(self._jobs):
                self.ended(job_id)
            return
        for job_id, order in self._find_orders().items():
            self.launched(job_id, order)

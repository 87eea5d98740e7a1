"""Callers that wait for the pool: their futures by the number of the request. Effects resolve the futures."""

from __future__ import annotations

import asyncio
import itertools

from ...errors import GreenroomError
from ...exit_report import ExitReport
from ..core import vocabulary as v
from ..core.records import Job

__all__ = ["Callers", "Ticket"]


class Ticket:
    """Futures of one caller. An error is the result of a future: see :func:`~greenroom.errors.fresh`."""

    def __init__(self, number: int, job_id: str) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.job_id = job_id
        self.job: Job | None = None
        """Record of the job in the core, which the shell only reads."""
        self.refusal: GreenroomError | None = None
        """Error with which the core has refused the latest request at once."""
        self.given_up: GreenroomError | None = None
        """Error because of which the job will not start."""
        self.granted: asyncio.Future[GreenroomError | None] = loop.create_future()
        self.started: asyncio.Future[GreenroomError | None] = loop.create_future()
        self.answer: asyncio.Future[v.AppAnswered | GreenroomError] = loop.create_future()
        self.report: asyncio.Future[ExitReport] = loop.create_future()

    def fail(self, error: GreenroomError) -> None:
        """Resolve all futures about the start with an error, because the job will not start."""
        self.given_up = error
        for future in (self.granted, self.started):
            if not future.done():
                future.set_result(error)
        if not self.answer.done():
            self.answer.set_result(error)


class Callers:
    """Tickets and futures of all callers, which effects of the core resolve."""

    def __init__(self) -> None:
        self.tickets: dict[int, Ticket] = {}
        self.reloads: dict[int, asyncio.Future[GreenroomError | None]] = {}
        self.questions: dict[int, asyncio.Future[v.AppAnswered]] = {}
        """Futures of questions that are not about a job."""
        self.opened: asyncio.Future[GreenroomError | None] = asyncio.get_running_loop().create_future()
        self._numbers = itertools.count(1)

    def ticket(self, job_id: str) -> Ticket:
        """Make a ticket for a request."""
        number = next(self._numbers)
        made = self.tickets[number] = Ticket(number, job_id)
        return made

    def reload(self) -> tuple[int, asyncio.Future[GreenroomError | None]]:
        """Make a number and a future for a reload."""
        number = next(self._numbers)
        future = self.reloads[number] = asyncio.get_running_loop().create_future()
        return number, future

    def question(self) -> tuple[int, asyncio.Future[v.AppAnswered]]:
        """Make a number and a future for a question that is not about a job."""
        number = next(self._numbers)
        future = self.questions[number] = asyncio.get_running_loop().create_future()
        return number, future

    def refused(self, effect: v.Refused) -> None:
        """Note the error with which a request is refused."""
        ticket = self.tickets.get(effect.number)
        if ticket is not None:
            ticket.refusal = effect.error
            if ticket.job is None:
                del self.tickets[effect.number]

    def granted(self, effect: v.Granted) -> None:
        """Report that a process is reserved."""
        self.tickets[effect.number].granted.set_result(None)

    def app_answered(self, effect: v.AppAnswered) -> None:
        """Pass on the answer to a question."""
        future = self.questions.pop(effect.number, None)
        if future is None:
            self.tickets[effect.number].answer.set_result(effect)
        elif not future.done():  # otherwise its caller waits no more
            future.set_result(effect)

    def has_started(self, effect: v.HasStarted) -> None:
        """Report that a job runs."""
        ticket = self.tickets[effect.number]
        if not ticket.started.done():
            ticket.started.set_result(None)

    def not_started(self, effect: v.NotStarted) -> None:
        """Report that a job will not start, or that a reservation has ended without a job."""
        self.tickets[effect.number].fail(effect.error)

    def over(self, effect: v.Over) -> None:
        """Report the end of a job."""
        ticket = self.tickets.pop(effect.number)
        if not ticket.started.done():
            ticket.started.set_result(None)
        ticket.report.set_result(effect.report)

    def withdrawn(self, number: int) -> None:
        """Forget a reservation that has ended without a job."""
        self.tickets.pop(number, None)

    def has_reloaded(self, effect: v.HasReloaded) -> None:
        """Report the end of a reload."""
        future = self.reloads.pop(effect.number, None)
        if future is not None:  # otherwise its caller waits no more
            future.set_result(effect.error)

    def has_opened(self, effect: v.Opened) -> None:
        """Report that the app is loaded, or the error because of which it is not."""
        if not self.opened.done():
            self.opened.set_result(effect.error)

"""Workers that a command asks at the same time, and what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ..command_exit_codes import ExitCode
from .client import Client
from .printing import Failure, echo

__all__ = ["Replies", "Reply", "Workers", "joint_failure"]

_Plain = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """Answer of one worker, or the reason why there is none."""

    worker: str
    """Name of the worker, as :meth:`Workers.name_of` returns it."""
    url: str
    answer: T | Failure


@dataclass(frozen=True, slots=True)
class Replies(Generic[T]):
    """Replies of all workers to one question, in the order of their addresses. At least one has an answer."""

    each: list[Reply[T]]

    @property
    def are_several(self) -> bool:
        return len(self.each) > 1

    @property
    def answers(self) -> list[tuple[str, T]]:
        """Return the answers, each with the name of its worker."""
        return [(reply.worker, reply.answer) for reply in self.each if not isinstance(reply.answer, Failure)]

    @property
    def failures(self) -> list[tuple[str, Failure]]:
        """Return the failures, each with the name of its worker."""
        return [(reply.worker, reply.answer) for reply in self.each if isinstance(reply.answer, Failure)]

    def rows(self, rows_of: Callable[[T], Iterable[Mapping[str, Any]]]) -> list[_Plain]:
        """Return the rows of all answers. If several workers were asked, each row has its ``worker``."""
        if not self.are_several:
            return [dict(row) for _, answer in self.answers for row in rows_of(answer)]
        return [{"worker": worker, **row} for worker, answer in self.answers for row in rows_of(answer)]

    def with_workers(self, shown: _Plain) -> _Plain:
        """Return data for ``--json``. If several workers were asked, ``workers`` has each of them with its failure."""
        return {**shown, "workers": self.as_plain()} if self.are_several else shown

    def as_plain(self) -> list[_Plain]:
        """Return each worker with its address and its failure; ``error`` is ``None`` if it has answered."""
        errors = {worker: failure.brief for worker, failure in self.failures}
        return [{"worker": reply.worker, "url": reply.url, "error": errors.get(reply.worker)} for reply in self.each]

    def report_failures(self, code: ExitCode = ExitCode.OK) -> ExitCode:
        """Print a line for each worker without an answer. Return ``code`` if all have answered, else 1."""
        for line in _lines(self.failures):
            echo(line, err=True)
        return ExitCode.NEGATIVE if self.failures else code


class Workers:
    """Clients of the workers that a command asks, in the order of their addresses, as an async context manager."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = list(clients)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for client in self.clients:
            await self._open.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._open.aclose()

    @property
    def are_several(self) -> bool:
        return len(self.clients) > 1

    def name_of(self, client: Client) -> str:
        """Return the name of a worker, or its URL: before its first answer, and if another one has the same name."""
        name = client.worker
        if name is None or [other.worker for other in self.clients].count(name) > 1:
            return client.url
        return name

    def marked(self, client: Client, shown: _Plain) -> _Plain:
        """Return data of one worker. Among several workers, the data get its name as ``worker``."""
        return {"worker": self.name_of(client), **shown} if self.are_several else shown

    async def ask_each(self, ask: Callable[[Client], Awaitable[T]]) -> Replies[T]:
        """Ask all workers at the same time, and return their replies. Raises :class:`Failure` if all have failed."""
        answers = await asyncio.gather(*(_answer_of(ask, client) for client in self.clients))
        each: list[Reply[T]] = [
            Reply(self.name_of(client), client.url, answer)
            for client, answer in zip(self.clients, answers, strict=True)
        ]
        replies = Replies(each)
        if not replies.answers:
            raise joint_failure(replies.failures)
        return replies

    async def act_in_turn(self, act: Callable[[Client], Awaitable[T]], done: Callable[[Client, T], None]) -> None:
        """Act on one worker after the other, and call ``done`` after each act.

        Raises :class:`Failure` at the first act that fails: the workers after it stay as they are. If one of several
        workers does not answer at the beginning, none is touched.
        """
        if self.are_several:
            present = await self.ask_each(lambda client: client.get("/livez"))
            if present.failures:
                raise joint_failure(present.failures, "nothing was changed, since not all workers answer")
        for number, client in enumerate(self.clients):
            try:
                result = await act(client)
            except Failure as failure:
                if not self.are_several:
                    raise
                left = ", ".join(map(self.name_of, self.clients[number + 1 :]))
                more = f"\nunchanged, since this failed: {left}" if left else ""
                raise Failure(f"{self.name_of(client)}: {failure}{more}", failure.code) from failure
            done(client, result)


async def _answer_of(ask: Callable[[Client], Awaitable[T]], client: Client) -> T | Failure:
    try:
        return await ask(client)
    except Failure as failure:
        return failure


def joint_failure(failures: Sequence[tuple[str, Failure]], head: str = "") -> Failure:
    """Return one failure for those of several workers, with their names. Its code is theirs, or 1 if they differ."""
    if not head and len({str(failure) for _, failure in failures}) == 1:
        return failures[0][1]
    codes = {failure.code for _, failure in failures}
    lines = [head or f"all {len(failures)} workers failed", *_lines(failures)]
    return Failure("\n".join(lines), codes.pop() if len(codes) == 1 else ExitCode.NEGATIVE)


def _lines(failures: Iterable[tuple[str, Failure]]) -> list[str]:
    # Indented, so that no part of a message can look like the line of another worker.
    return [f"{worker}: {failure.brief}".replace("\n", "\n    ") for worker, failure in failures]

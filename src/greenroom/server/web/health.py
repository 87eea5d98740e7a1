"""What orchestrators and load balancers ask: alive, ready, under how much pressure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ...errors import PoolClosed
from ...pool import PoolStats, ProcessPool
from ..admission import Admission
from ..board import RECENT_SECONDS, Board
from ..readiness import not_ready
from .guard import is_trusted
from .operations import Operation
from .requests import json_response
from .schema import Alive, Pressure, Readiness, TurnedDownRecently

__all__ = ["HealthApi"]


class HealthApi:
    """The handlers. ``sources`` tells what each source says of itself."""

    def __init__(
        self,
        pool: ProcessPool,
        admission: Admission,
        board: Board,
        sources: Callable[[], dict[str, dict[str, Any]]],
    ) -> None:
        self._pool = pool
        self._admission = admission
        self._board = board
        self._sources = sources

    def operations(self) -> list[Operation]:
        tags = ("health",)
        ready = {200: Readiness, 503: Readiness}
        return [
            Operation("GET", "/livez", self.livez, "Whether it answers", {200: Alive}, is_open=True, tags=tags),
            Operation(
                "GET", "/readyz", self.readyz, "Whether a session could start now", ready, is_open=True, tags=tags
            ),
            Operation(
                "GET",
                "/pressure",
                self.pressure,
                "How much more it could take",
                {200: Pressure},
                errors=(503,),
                tags=tags,
            ),
        ]

    def probes(self) -> list[Operation]:
        """What is answered on ``health_port``: the two open ones, and LiveKit's path for the same question."""
        alive = Operation(
            "GET", "/", self.alive, "Whether it answers", {200: "text/plain"}, is_open=True, tags=("health",)
        )
        return [alive, *(operation for operation in self.operations() if operation.is_open)]

    async def alive(self, request: web.Request) -> web.Response:
        """OK, as LiveKit's own worker says."""
        return web.Response(text="OK")

    async def livez(self, request: web.Request) -> web.Response:
        """This process answers; whether it can take a session is another question."""
        return json_response(Alive(True))

    async def readyz(self, request: web.Request) -> web.Response:
        """200 if a session could start now; else 503, with the reason."""
        problem = self._problem()
        if problem is None:
            return json_response(Readiness(True))
        reason, detail = problem
        # What an app's failure says can hold anything: it is not for whoever has no token.
        return json_response(Readiness(False, reason, detail if is_trusted(request) else None), status=503)

    async def pressure(self, request: web.Request) -> web.Response:
        """Slots, warm processes, and what was turned down lately."""
        stats, problem = self._pool.stats(), self._problem()
        capacity = self._pool.options.max_jobs
        recently = self._board.recently_turned_down(time.time())
        shown = Pressure(
            accepting=problem is None,
            reason=None if problem is None else problem[0],
            running=stats.jobs,
            idle=stats.idle,
            warming=stats.warming,
            capacity=capacity,
            free=max(capacity - stats.jobs, 0),
            idle_target=stats.idle_target,
            warm_deficit=_deficit(stats),
            turned_down=TurnedDownRecently(RECENT_SECONDS, recently.total(), dict(recently)),
            session_mb=stats.session_mb,
            sources=self._sources(),
        )
        return json_response(shown)

    def _problem(self) -> tuple[str, str] | None:
        try:
            return not_ready(self._admission.problem(), self._pool.stats())
        except PoolClosed as error:
            return "draining", str(error)


def _deficit(stats: PoolStats) -> int:
    return max(stats.idle_target - stats.idle, 0)

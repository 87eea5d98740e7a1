"""Calls by HTTP: each a job with a plan, from its request to its report."""

from __future__ import annotations

import asyncio
import random
import time

import aiohttp

from .account import Account
from .client import Client
from .ledger import Call, End, Injection
from .plans import draw

__all__ = ["HttpCalls", "fetch_end"]

PATIENCE = 60.0
"""Seconds from a job's planned end within which there must be a report: more than all deadlines together."""
NETWORK = (aiohttp.ClientError, OSError, TimeoutError)


class HttpCalls:
    """Starts jobs, one after the other in each of several lines, and settles their account."""

    def __init__(self, client: Client, account: Account, seed: int) -> None:
        self.count = 0
        self._client = client
        self._account = account
        self._chance = random.Random(f"{seed} http")

    async def line(self, until: asyncio.Event, pause: float) -> None:
        """Start one job after the other until the event is set."""
        while not until.is_set():
            await self._one()
            await asyncio.sleep(self._chance.uniform(0.0, pause))

    async def _one(self) -> None:
        self.count += 1
        plan, metadata, cancel_after = draw(self._chance, self.count)
        call = Call(f"soak-{metadata['nonce']}", plan, metadata["nonce"], requested=time.time())
        self._account.ledger.note(call.requested, f"ask    {call.id} {plan} {metadata['seconds']} s")
        await self._ask(call, metadata)
        if call.answer in ("accepted", "failed", "unanswered"):
            cancelling = asyncio.create_task(self._cancel(call, cancel_after))
            try:
                await fetch_end(self._client, call)
            finally:
                cancelling.cancel()
        self._account.settle_call(call)

    async def _ask(self, call: Call, metadata: dict[str, object]) -> None:
        try:
            status, answer = await self._client.ask("POST", "/v1/jobs", {"id": call.id, "metadata": metadata})
        except aiohttp.ClientConnectorError as error:
            call.answer, call.why = "unreachable", repr(error)
        except NETWORK as error:
            call.answer, call.why = "unanswered", repr(error)
        else:
            self._take(call, status, answer)
        call.answered = time.time()
        self._account.ledger.note(call.answered, f"answer {call.id} {call.answer} {call.why[:200]}")

    def _take(self, call: Call, status: int, answer: dict[str, dict[str, str]]) -> None:
        error = answer.get("error") or {}
        kind, reason = error.get("type"), error.get("reason")
        if status == 201:
            call.answer = "accepted"
        elif (status, kind) in ((503, "no_capacity"), (403, "rejected")) and reason:
            call.answer, call.why = "rejected", reason
        elif (status, kind) == (503, "launch_failed"):
            call.answer, call.why = "failed", f"{reason}: {error.get('message')}"
        elif (status, kind) == (503, "too_many_connections"):
            call.answer, call.why = "unreachable", str(kind)  # for want of files
        else:
            call.answer, call.why = "odd", f"{status} {error}"

    async def _cancel(self, call: Call, after: float | None) -> None:
        ledger = self._account.ledger
        if after is None:
            return
        await asyncio.sleep(after)
        if call.id in ledger.touched:
            return  # something else was done to it: its cause stays one cause
        note = f"by the soak {call.nonce}"
        injection = ledger.inject(Injection(time.time(), "cancel", job_id=call.id, note=note))
        try:
            status, _ = await self._client.ask("DELETE", f"/v1/jobs/{call.id}?reason={note.replace(' ', '%20')}")
        except NETWORK:
            return  # it may have been heard
        if status in (200, 404):
            ledger.void(injection)  # the job had ended


async def fetch_end(client: Client, call: Call) -> None:
    """Wait for a job's report. Without one, ``call.missed`` says since when, and why."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        try:
            status, answer = await client.ask("GET", f"/v1/jobs/{call.id}?wait=30")
        except NETWORK as error:
            call.missed, call.missed_why = call.missed or time.time(), repr(error)
            await asyncio.sleep(0.2)
            continue
        if status == 200 and answer["report"] is not None:
            call.end = End.of(answer["report"])
            return
        if status == 404:
            call.missed, call.missed_why = call.missed or time.time(), "the worker does not know the job"
            return
    call.missed, call.missed_why = call.missed or time.time(), f"no report came within {PATIENCE:g} s"

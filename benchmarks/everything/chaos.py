"""Everything that is done to the worker by chance, one act after the other; some of them last for a while."""

from __future__ import annotations

import asyncio
import math
import os
import random
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from . import signals, variants
from .account import Account, Violation
from .client import Client
from .effects import DOWN, EFFECTS
from .http_calls import NETWORK
from .ledger import Injection
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Chaos"]

ZYGOTE_RESTS = 6.0
"""Seconds between two losses of a zygote: more of them, and the pool rightly slows down."""
RARE_REST = 25.0
"""Seconds after the worker's end, or a shortage, before the next."""
RARE = frozenset({"kill worker", "drain worker", "memory short", "files short"})
MORE_THAN_THERE_IS_MB = 10**8


class Chaos:
    """Draws acts from a deck, so that in some minutes each has its turn. ``known`` are this process's own children."""

    def __init__(self, worker: Worker, client: Client, account: Account, seed: int, known: set[int]) -> None:
        self.worker = worker
        self._client, self._account, self._ledger = client, account, account.ledger
        self._chance = random.Random(f"{seed} chaos")
        self._known = known
        self._variant = 0
        self._rests: dict[str, float] = {}
        self._deck: list[str] = []
        self.is_honest = True
        """False: one session is killed, and nobody is told. The account must find it."""
        self.skipped = 0
        """Acts for which nobody was there."""
        self.spares_worker = False
        """The worker's own life is not to end any more."""
        self.ends_worker = False
        """It is being ended, and started again."""

    async def run(self, until: asyncio.Event, pause: float) -> None:
        """Do one act after the other until the event is set."""
        while not until.is_set():
            await asyncio.sleep(self._chance.uniform(0.0, 2 * pause))
            if not self._deck:
                self._deck = [kind for kind, effect in EFFECTS.items() for _ in range(effect.weight)]
                self._chance.shuffle(self._deck)
            kind = self._deck.pop()
            if not self.is_honest and (target := await self._target("session")):
                self.is_honest = await self._kill(target[0])
            if not await self._act(kind):
                self.skipped += 1

    async def _act(self, kind: str) -> bool:
        """Do one act; returns whether there was somebody to do it to."""
        group = "rare" if kind in RARE else "zygote" if kind.endswith("zygote") else kind
        now = time.monotonic()
        if now < self._rests.get(group, 0.0) or (self.spares_worker and kind in DOWN):
            return False
        verb, _, whom = kind.partition(" ")
        done = await self._DEEDS[kind](self) if kind in self._DEEDS else await self._to_process(kind, verb, whom)
        rest = {"rare": RARE_REST, "zygote": ZYGOTE_RESTS}.get(group, 0.0)
        self._rests[group] = time.monotonic() + rest if done else now
        return done

    # --- one process -------------------------------------------------------------------------------

    async def _to_process(self, kind: str, verb: str, whom: str) -> bool:
        target = await self._target(whom)
        if target is None:
            return False
        pid, job_id = target
        injection = self._ledger.inject(Injection(time.time(), kind, pid, job_id))
        how = {"kill": self._kill, "stop": self._stop, "pause": self._pause, "hold": self._hold}[verb]
        if not await how(pid):
            self._ledger.void(injection)
            return False
        return True

    async def _target(self, whom: str) -> tuple[int, str | None] | None:
        """Pick a process that nothing was done to yet."""
        pool = await self._client.pool()
        if whom == "zygote":
            return (pool["zygote_pid"], None) if pool.get("zygote_pid") else None
        state = "running" if whom == "session" else whom
        there = [
            (each["pid"], each["job_id"] if whom == "session" else None) for each in pool.get("processes", ())
            if each["state"] == state and each["pid"] and not self._is_spent(each)
        ]  # fmt: skip
        return self._chance.choice(there) if there else None

    def _is_spent(self, process: dict[str, Any]) -> bool:
        return process["job_id"] in self._ledger.touched or time.time() - self._ledger.hit.get(process["pid"], 0) < 60

    async def _kill(self, pid: int) -> bool:
        return signals.send(pid, self.worker.mark, signal.SIGKILL)

    async def _stop(self, pid: int) -> bool:
        return signals.send(pid, self.worker.mark, signal.SIGSTOP)

    async def _pause(self, pid: int) -> bool:
        if not signals.send(pid, self.worker.mark, signal.SIGSTOP):
            return False
        await asyncio.sleep(self._chance.uniform(0.1, 1.0))
        signals.send(pid, self.worker.mark, signal.SIGCONT)
        return True

    async def _hold(self, pid: int) -> bool:
        if not signals.is_marked(pid, self.worker.mark):
            return False
        async with signals.held(pid, self._known) as threads:
            await asyncio.sleep(self._chance.uniform(0.1, 1.0))
        return threads > 0

    # --- the code ------------------------------------------------------------------------------------

    async def _reload_good(self) -> bool:
        self._variant += 1
        variants.write_good(self.worker.folder, self._variant)
        injection = self._ledger.inject(Injection(time.time(), "reload good", until=math.inf))
        try:
            status, answer = await self._client.ask("POST", "/v1/pool/reload", {})
        except NETWORK:
            status, answer = 0, None
        injection.until = time.time()
        self._ledger.note(injection.until, f"reload answered by {status} {str(answer)[:300]}")
        around = self._ledger.between(EFFECTS.keys() - {"cancel", "reload good"}, injection.at - 20, injection.until)
        if status != 200 and not around:
            self._account.judge(
                [f"a reload of good code was answered by {status}, but no injection explains that: {answer}"]
            )
        return True

    async def _reload_bad(self) -> bool:
        self._variant += 1
        kind = self._chance.choice(list(variants.BAD))
        variants.write_bad(self.worker.folder, kind, self._variant)
        injection = self._ledger.inject(Injection(time.time(), "reload bad", until=math.inf, note=kind))
        try:
            status, answer = await self._client.ask("POST", "/v1/pool/reload", {})
        except NETWORK:
            status, answer = 0, None
        finally:
            variants.write_good(self.worker.folder, self._variant)
        injection.until = time.time()
        self._ledger.note(injection.until, f"reload answered by {status} {str(answer)[:300]}")
        if status == 200:
            self._account.judge([f"a reload of bad code ({kind}) was answered by 200: {answer}"])
        return True

    # --- what the machine gives -----------------------------------------------------------------------

    async def _files_short(self) -> bool:
        pid = self.worker.pid
        used = sorted(int(each) for each in os.listdir(f"/proc/{pid}/fd"))
        free = next(number for number in range(len(used) + 1) if number not in used)
        with suppress(ProcessLookupError):
            async with self._lasting("files short", pid) as injection:
                limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                few = max(used[-1] if self._chance.random() < 0.5 else free, 3) + self._chance.randrange(4)
                injection.note = f"limit {few}, {len(used)} open"
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, limits[1]))
                try:
                    await asyncio.sleep(self._chance.uniform(0.5, 4.0))
                finally:
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        return True

    async def _memory_short(self) -> bool:
        """One life of the worker with a limit that no machine keeps: each session is rejected, and says why."""
        async with self._lasting("memory short") as injection:
            self._check(*await self.worker.stop())
            await self.worker.start(min_free_memory_mb=MORE_THAN_THERE_IS_MB)
            await asyncio.sleep(self._chance.uniform(1.0, 3.0))
            injection.note = "served"
            self._check(*await self.worker.stop())
            await self.worker.start()
        return True

    # --- the worker ------------------------------------------------------------------------------------

    async def _kill_worker(self) -> bool:
        async with self._lasting("kill worker", self.worker.pid):
            left = await self.worker.kill()
            if left:
                raise Violation([f"left after the worker was killed: {each}" for each in left])
            await asyncio.sleep(self._chance.uniform(0.0, 1.0))
            await self.worker.start()
        return True

    async def _drain_worker(self) -> bool:
        async with self._lasting("drain worker"):
            self._check(*await self.worker.stop())
            await self.worker.start()
        return True

    def _check(self, code: int | None, left: list[str]) -> None:
        faults = [] if code == 0 else [f"the worker ended with exit code {code} after a request to end"]
        faults += [f"left after the worker's end: {each}" for each in left]
        if faults:
            raise Violation(faults)

    @asynccontextmanager
    async def _lasting(self, kind: str, pid: int | None = None) -> AsyncIterator[Injection]:
        """Note an injection whose effect lasts until the end of the block."""
        injection = self._ledger.inject(Injection(time.time(), kind, pid, until=math.inf))
        self.ends_worker = kind in DOWN
        try:
            yield injection
        finally:
            self.ends_worker = False
            injection.until = time.time()
            self._ledger.note(injection.until, f"over   {kind} {injection.note}")

    _DEEDS: dict[str, Callable[[Chaos], Awaitable[bool]]] = {  # noqa: RUF012
        "reload good": _reload_good,
        "reload bad": _reload_bad,
        "files short": _files_short,
        "memory short": _memory_short,
        "kill worker": _kill_worker,
        "drain worker": _drain_worker,
    }

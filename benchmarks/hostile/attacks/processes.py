"""Signals to the worker's processes. Only processes of the worker under attack are meant, each by its pid."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from ..target import report
from .base import Attack, Turn


class SigchldStorms(Attack):
    name = "sigchld-storms"
    about = "20,000 SIGCHLD at once to the supervisor and the zygote, once a second"

    def strike(self, turn: Turn) -> None:
        zygote = self.target.pool().get("zygote_pid")
        for _ in turn.times(1.0 * self.target.rate):
            for number in range(20_000):
                with suppress(ProcessLookupError):
                    os.kill(self.target.pid if number % 3 or zygote is None else zygote, signal.SIGCHLD)
            self.count["signals"] += 20_000


class LostZygotes(Attack):
    name = "lost-zygotes"
    about = "kill -9 of the zygote, under a session whose 20 children then end at once"

    def strike(self, turn: Turn) -> None:
        self.target.start(self.name, "completed", role="family", children=20, seconds=max(1.0, turn.left - 3))
        turn.wait(1.0)
        zygote = self.target.pool().get("zygote_pid")
        if zygote is not None:
            with suppress(ProcessLookupError):
                os.kill(zygote, signal.SIGKILL)
                self.count["zygotes killed"] += 1
        turn.rest()


class KilledIdle(Attack):
    name = "killed-idle"
    about = "kill -9 of an idle process, once a second"

    def strike(self, turn: Turn) -> None:
        for _ in turn.times(1.0 * self.target.rate):
            idle = [each["pid"] for each in self.target.pool()["processes"] if each["state"] == "idle"]
            if idle:
                self._kill(self.target.random.choice(idle))

    def _kill(self, pid: int) -> None:
        # A session may take it in this moment: then it is that session which was attacked.
        report(killed=pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.count["processes killed"] += 1


class KilledLive(Attack):
    name = "killed-live"
    about = "kill -9 of one honest session, unannounced: the account must count it as lost"
    by_default = False

    def strike(self, turn: Turn) -> None:
        jobs = self.target.ask("GET", "/v1/jobs?state=running")[1]["jobs"]
        if not self.count["sessions killed"]:
            os.kill(next(job["pid"] for job in jobs if job["id"].startswith("live-")), signal.SIGKILL)
            self.count["sessions killed"] += 1
        turn.rest()

"""Sessions that attack the worker which runs them."""

from __future__ import annotations

from itertools import cycle

from .base import Attack, Turn


class Crashes(Attack):
    name = "crashes"
    about = "a session a second that crashes: SIGSEGV, SIGKILL, an exit, an exception, all files closed"

    def strike(self, turn: Turn) -> None:
        ends = {"segv": "signaled", "kill": "signaled", "exit": "exited", "raise": "raised", "close": "any"}
        kinds = cycle(ends.items())
        for _ in turn.times(1.0 * self.target.rate):
            how, wants = next(kinds)
            self.count["sessions"] += self.target.start(self.name, wants, role="crash", how=how) is not None


class OutputFloods(Attack):
    name = "output-floods"
    about = "2 sessions that write 4 MB/s to stdout, one without any end of line"

    def strike(self, turn: Turn) -> None:
        seconds = max(0.5, turn.left - 2)
        for end in ("\n", "x"):
            started = self.target.start(self.name, "completed", role="flood", seconds=seconds, mb_s=4, end=end)
            self.count["sessions"] += started is not None
        turn.rest()


class RecordFloods(Attack):
    name = "record-floods"
    about = "2 sessions that log 100 records a second, with fields of 60 kB and control characters"

    def strike(self, turn: Turn) -> None:
        seconds = max(0.5, turn.left - 2)
        for _ in range(2):
            started = self.target.start(self.name, "completed", role="records", seconds=seconds, per_second=100)
            self.count["sessions"] += started is not None
        turn.rest()


class BigResults(Attack):
    name = "big-results"
    about = "a session every 4 s whose result has 60 MiB"

    def strike(self, turn: Turn) -> None:
        for _ in turn.times(0.25 * self.target.rate):
            self.count["sessions"] += self.target.start(self.name, "completed", role="big", mb=60) is not None


class UnfinishedResults(Attack):
    name = "unfinished-results"
    about = "10 sessions that send a result of 63 MiB except its last bytes, and wait"

    def strike(self, turn: Turn) -> None:
        for _ in turn.times(4 * self.target.rate, limit=10):
            started = self.target.start(self.name, "any", role="unfinished", seconds=max(1.0, turn.left - 1))
            self.count["sessions"] += started is not None
        turn.rest()


class CutHeartbeats(Attack):
    name = "cut-heartbeats"
    about = "a session every 3 s that truncates the file of the heartbeats"

    def strike(self, turn: Turn) -> None:
        for _ in turn.times(1 / 3 * self.target.rate):
            self.count["sessions"] += self.target.start(self.name, "any", role="truncate") is not None

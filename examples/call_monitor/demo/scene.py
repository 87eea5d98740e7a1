"""What the demo knows: the calls it placed, and the worker's pool and processes as they were last seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from .memory import Memory

Fate = Literal["served", "killed from outside", "lost"]

LIGHTS = {
    "requested": "warming",
    "forked": "warming",
    "warming": "warming",
    "idle": "idle",
    "claimed": "running",
    "running": "running",
    "draining": "draining",
    "killing": "draining",
    "exited": "draining",
}
"""The pool's states, as the lights that show them."""


@dataclass
class Call:
    """One call, from the moment it is placed to its exit report."""

    caller: str
    seconds: float
    """How much of the recording it hears."""
    id: str | None = None
    pid: int | None = None
    launch_type: str | None = None
    start_ms: float | None = None
    started_at: float | None = None
    state: str = "calling"
    spurts: list[tuple[float, float]] = field(default_factory=list)
    memory: Memory | None = None
    report: dict[str, Any] | None = None
    trouble: str | None = None
    """Why there will be no report: it was turned down, or lost."""

    @property
    def is_over(self) -> bool:
        return self.report is not None or self.trouble is not None

    @property
    def fate(self) -> Fate | None:
        """How it went; None while it goes on. Lost is what Greenroom, or the agent, has to answer for."""
        if self.report is not None:
            if self.report["outcome"] == "succeeded":
                return "served"
            return "killed from outside" if self.report["reason"] in ("signaled", "cancelled") else "lost"
        return "lost" if self.trouble is not None else None

    @property
    def result(self) -> dict[str, Any]:
        """What the agent returned; empty if it did not get that far."""
        return (self.report or {}).get("result") or {}

    def answered(self, answer: dict[str, Any], now: float) -> None:
        """The worker has started it."""
        self.id, self.pid = answer["id"], answer["pid"]
        self.launch_type, self.start_ms = answer["launch_type"], answer["start_ms"]
        self.state, self.started_at = answer["state"], now

    def ended(self, report: dict[str, Any]) -> None:
        self.state, self.report = "ended", report

    def failed(self, trouble: str) -> None:
        self.state, self.trouble = "lost", trouble

    def measured(self, memory: Memory) -> None:
        """Keep the dearest moment."""
        if self.memory is None or memory.private > self.memory.private:
            self.memory = memory


@dataclass
class Light:
    """One process of the pool."""

    pid: int
    state: str
    """A key of :data:`LIGHTS`, or `ended` or `killed`."""
    job_id: str | None = None
    why: str = ""


@dataclass
class Scene:
    """Everything there is to show."""

    calls: list[Call]
    note: Callable[[str], None]
    """Where a remark on something out of the ordinary goes."""
    pool: dict[str, Any] = field(default_factory=dict)
    lights: dict[str, Light] = field(default_factory=dict)
    image: Memory | None = None
    """The zygote's, which all processes share."""

    @property
    def is_over(self) -> bool:
        return all(call.is_over for call in self.calls)

    @property
    def all_started(self) -> bool:
        return all(call.pid is not None or call.is_over for call in self.calls)

    def of_fate(self, *fates: Fate) -> list[Call]:
        return [call for call in self.calls if call.fate in fates]

    def running(self) -> list[Call]:
        """The calls whose process is there."""
        pids = {light.pid for light in self.lights.values() if light.state == "running"}
        return [call for call in self.calls if call.pid in pids and not call.is_over]

    def idle_pids(self) -> list[int]:
        return [light.pid for light in self.lights.values() if light.state == "idle"]

    def count(self, state: str) -> int:
        return sum(light.state == state for light in self.lights.values())

    def look(self, pool: dict[str, Any]) -> list[Call]:
        """Take the worker's latest account of its pool; returns the calls whose process is gone."""
        self._mind_the_zygote(self.pool.get("zygote_pid"), pool.get("zygote_pid"))
        self.pool = pool
        seen = [process for process in pool["processes"] if process["pid"] is not None]
        self._relight(seen)
        states = {process["job_id"]: process["state"] for process in pool["processes"]}
        under_way = [call for call in self.calls if call.id is not None and not call.is_over]
        for call in under_way:
            call.state = states.get(call.id, call.state)
        return [call for call in under_way if call.id not in states]

    def put_out(self, process_id: str, outcome: str, reason: str) -> Light | None:
        """A process has ended, and this is how."""
        light = self.lights.get(process_id)
        if light is not None:
            light.state, light.why = ("killed" if outcome == "killed" else "ended"), reason
        return light

    def talked(self, caller: str, start: float, end: float) -> None:
        """A caller was heard to talk."""
        for call in self.calls:
            if call.caller == caller:
                call.spurts.append((start, end))

    def _relight(self, processes: Iterable[dict[str, Any]]) -> None:
        alive = set(LIGHTS.values())
        gone = {key for key, light in self.lights.items() if light.state in alive}
        for process in processes:
            key, state = process["id"], LIGHTS.get(process["state"], "draining")
            gone.discard(key)
            light = self.lights.setdefault(key, Light(process["pid"], state))
            if light.state in alive:  # news of its end may have been faster
                light.state, light.job_id = state, process["job_id"]
        for key in gone:
            self.lights[key].state = "ended"

    def _mind_the_zygote(self, before: int | None, now: int | None) -> None:
        if before is not None and now is None:
            self.note(f"zygote {before} is gone: running calls go on, and a new zygote is starting")
        elif now is not None and self.pool and before != now:
            self.note(f"zygote {now} has taken over")

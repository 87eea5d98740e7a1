"""Picture of a worker, made from its events on the reader's side. Pure: events and the time are arguments."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from ...exit_reasons import is_expected
from .figures import summary

__all__ = ["Picture"]

KEPT_SESSIONS = 2000
KEPT_TURNED_DOWN = 2000
KEPT_TROUBLES = 100
KEPT_LATENCIES = 2000
RECENT_SECONDS = 60.0

_Data = dict[str, Any]


class Picture:
    """Picture that begins with the event ``board``, and follows all later events."""

    def __init__(self) -> None:
        self.app = ""
        self.problem: str | None = None
        self.stats: _Data | None = None
        """Counts of the pool; ``None`` before its start and after its end."""
        self.capacity = 0
        self.processes: dict[str, _Data] = {}
        self.sessions: dict[str, _Data] = {}
        """Sessions by job id, the oldest first: the live ones, and the latest that have ended."""
        self._turned_down: deque[_Data] = deque(maxlen=KEPT_TURNED_DOWN)
        self.start_times: deque[float] = deque(maxlen=KEPT_LATENCIES)
        """Latest start times, in milliseconds."""
        self._reports: deque[_Data] = deque(maxlen=KEPT_TROUBLES)
        self._notes: deque[_Data] = deque(maxlen=KEPT_TROUBLES)
        self._handlers: dict[str, Callable[[_Data], None]] = {
            "board": self._on_board,
            "Levels": self._on_levels,
            "ProcessChanged": self._on_change,
            "ProcessEnded": self._on_process_end,
            "MemorySampled": self._on_memory,
            "JobAccepted": self._on_accepted,
            "JobStarted": self._on_started,
            "JobEnded": self._on_job_end,
            "TurnedDown": self._turned_down.append,
            "ZygoteStarted": self._on_zygote,
            "ZygoteLost": self._on_zygote_lost,
            "Reloaded": self._on_reloaded,
        }

    def apply(self, name: str, data: _Data) -> None:
        """Apply an event. An unknown event changes nothing."""
        handler = self._handlers.get(name)
        if handler is not None:
            handler(data)
        if "incident" in data:
            self._note(data["incident"])

    # --- figures ---------------------------------------------------------------------------------

    def states(self) -> Counter[str]:
        """Return the number of processes in each state."""
        return Counter(process["state"] for process in self.processes.values())

    def live_sessions(self) -> list[_Data]:
        """Return the sessions that have not ended, the oldest first, each with facts about its process."""
        # If the first process of a job died before the start, the job has a second one, which overrides the first here.
        processes = {process["job_id"]: process for process in self.processes.values() if process["job_id"]}
        live = (session for session in self.sessions.values() if session["ended"] is None)
        return [_with_process(session, processes.get(session["id"])) for session in live]

    def ended_sessions(self) -> list[_Data]:
        """Return the sessions that have ended, the latest first."""
        ended = [session for session in self.sessions.values() if session["ended"] is not None]
        return sorted(ended, key=lambda session: float(session["ended"]), reverse=True)

    def troubles(self) -> list[_Data]:
        """Return the troubles, the latest first: unexpected ends of processes, lost zygotes, failed reloads."""
        return sorted([*self._reports, *self._notes], key=lambda item: float(item["at"]), reverse=True)

    def turned_down(self, now: float) -> Counter[str]:
        """Return the number of rejections within the last :data:`RECENT_SECONDS`, by reason."""
        return Counter(item["reason"] for item in self._turned_down if item["at"] > now - RECENT_SECONDS)

    def start_ms(self) -> _Data:
        """Return the number and percentiles of the latest start times, in milliseconds."""
        return summary(self.start_times)

    def as_plain(self, now: float) -> _Data:
        """Return the whole picture as plain data, for programs."""
        processes = list(self.processes.values())
        lists = {"sessions": self.live_sessions(), "processes": processes, "troubles": self.troubles()}
        return self.figures(now) | lists

    def figures(self, now: float) -> _Data:
        """Return the facts about the whole worker as plain data."""
        return {
            "app": self.app,
            "ready": self.problem is None and self.stats is not None,
            "reason": self.problem,
            "capacity": self.capacity,
            "stats": self.stats,
            "turned_down": dict(self.turned_down(now)),
            "start_ms": self.start_ms(),
            "states": dict(self.states()),
        }

    # --- events ----------------------------------------------------------------------------------

    def _on_board(self, data: _Data) -> None:
        self.app = data["app"]
        self.capacity = data["options"]["max_jobs"]
        self._on_levels(data)
        self.processes = {process["id"]: process for process in data["processes"]}
        self.sessions = {session["id"]: session for session in data["sessions"]}
        _refill(self._turned_down, data["turned_down"])
        _refill(self.start_times, (milliseconds for _, milliseconds in data["start_ms"]))
        _refill(self._reports, map(_trouble_of, data["reports"]))
        self._notes.clear()
        for incident in data["incidents"]:
            self._note(incident)

    def _on_levels(self, data: _Data) -> None:
        self.stats, self.problem = data["stats"], data["problem"]

    def _on_change(self, data: _Data) -> None:
        process = self.processes.setdefault(data["process_id"], {"id": data["process_id"], "private_mb": None})
        process |= {name: data[name] for name in ("pid", "generation", "job_id")}
        process |= {"state": data["after"], "since": data["at"]}

    def _on_process_end(self, data: _Data) -> None:
        report = data["report"]
        self.processes.pop(report["process_id"] or "", None)
        if not is_expected(report["outcome"], report["reason"], had_job=report["job_id"] is not None):
            self._reports.append(_trouble_of({**report, "at": data["at"]}))

    def _on_memory(self, data: _Data) -> None:
        process = self.processes.get(data["process_id"])
        if process is not None:
            process["private_mb"] = data["private_mb"]

    def _on_accepted(self, data: _Data) -> None:
        unknown = dict.fromkeys(("started", "ended", "start_ms", "pid", "process_id", "outcome", "reason", "detail"))
        known = {"id": data["job_id"], "labels": data.get("labels")}
        known |= {name: data[name] for name in ("source", "launch_type")}
        self.sessions[data["job_id"]] = {**known, "accepted": data["at"], **unknown}
        surplus = len(self.sessions) - KEPT_SESSIONS
        if surplus > 0:
            for job_id in [one["id"] for one in self.sessions.values() if one["ended"] is not None][:surplus]:
                del self.sessions[job_id]

    def _on_started(self, data: _Data) -> None:
        start_ms = round(data["start_seconds"] * 1000, 3)
        self.start_times.append(start_ms)
        session = self.sessions.get(data["job_id"])
        if session is not None:
            session |= {"started": data["at"], "start_ms": start_ms}
            session |= {name: data[name] for name in ("pid", "process_id", "launch_type")}

    def _on_job_end(self, data: _Data) -> None:
        session = self.sessions.get(data["report"]["job_id"] or "")
        if session is not None:
            session |= {"ended": data["at"]} | {name: data["report"][name] for name in ("outcome", "reason", "detail")}

    def _on_zygote(self, data: _Data) -> None:
        self._set_stats(generation=data["generation"], zygote_pid=data["pid"])

    def _on_zygote_lost(self, data: _Data) -> None:
        self._set_stats(zygote_pid=None)

    def _on_reloaded(self, data: _Data) -> None:
        self._set_stats(generation=data["generation"])

    def _set_stats(self, **changed: Any) -> None:
        if self.stats is not None:
            self.stats |= changed

    def _note(self, incident: _Data) -> None:
        if incident["is_bad"]:
            shown = {"who": "worker", "job_id": None, "what": incident["kind"], "detail": incident["cause"]}
            self._notes.append({"at": incident["at"], **shown})


def _with_process(session: _Data, process: _Data | None) -> _Data:
    if process is None:
        return {**session, "state": "waiting" if session["started"] is None else "ending", "private_mb": None}
    known = {"process_id": process["id"], "pid": process["pid"], "private_mb": process["private_mb"]}
    return {**session, "state": process["state"], **known}


def _refill(kept: deque[Any], items: Iterable[Any]) -> None:
    kept.clear()
    kept.extend(items)


def _trouble_of(report: _Data) -> _Data:
    who = f"job {report['job_id']}" if report["job_id"] else f"process {report['process_id']}"
    shown = {"at": report["at"], "who": who, "what": f"{report['outcome']}, {report['reason']}"}
    return shown | {name: report[name] for name in ("job_id", "pid", "outcome", "reason", "detail")}

"""The incidents of the drill, as a table: how each comes about, and where it is found.

docs/what-happened.md shows the table.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .facts import Facts
from .page_reader import ZONE
from .scene import Scene, clock_passes

__all__ = ["INCIDENTS", "Incident"]


@dataclass(frozen=True)
class Incident:
    """An incident and the ways that lead to its facts. ``None`` for a way that does not lead there."""

    name: str
    happened: str
    occurs: Callable[[Scene], Awaitable[Facts]]
    """Have it happen in a scene, and return the truth about it."""
    page: str
    """Where it is found on the page, in words."""
    clicks: tuple[str, ...]
    """The same as texts of links, buttons and summaries, from the status page on. One with ``?`` is a search."""
    commands: tuple[str, ...]
    log: dict[str, str] | None
    """Fields of the line in the JSON log."""
    place_in: dict[str, str] = field(default_factory=dict)
    """Fields of the line that has file and line, if it is another one."""
    options: tuple[str, ...] = ()


# --- how they come about -------------------------------------------------------------------------


async def killed(scene: Scene) -> Facts:
    call = await scene.call("stay")
    os.kill(call.pid, signal.SIGKILL)
    await scene.worker.report(call.id)
    return scene.facts("SIGKILL from outside", call.id)


def ended(act: str, cause: str) -> Callable[[Scene], Awaitable[Facts]]:
    """A call that comes to this end by itself."""

    async def occurs(scene: Scene) -> Facts:
        call = await scene.call(act)
        await scene.worker.report(call.id)
        return scene.facts(cause, call.id, act)

    return occurs


async def is_stuck(scene: Scene) -> Facts:
    call = await scene.call("block")
    await scene.worker.until(f"/v1/jobs/{call.id}", lambda answer: answer.body["is_stuck"])
    return scene.facts("event loop stands still", call.id, "block")


async def lingers(scene: Scene) -> Facts:
    call = await scene.call("linger")
    await scene.worker.ask("DELETE", f"/v1/jobs/{call.id}?reason=the+caller+hung+up")
    await scene.worker.report(call.id)
    return scene.facts("it had not ended by itself, and was killed", call.id, "linger")


async def loses_zygote(scene: Scene) -> Facts:
    scene.began = time.time()
    zygote = (await scene.worker.get("/v1/pool")).body["zygote_pid"]
    os.kill(zygote, signal.SIGKILL)
    await scene.worker.until("/v1/pool", lambda answer: answer.body["zygote_pid"] not in (None, zygote))
    return scene.facts("signal 9")


async def deploys_syntax_error(scene: Scene) -> Facts:
    with scene.path.open("a") as file:
        file.write("def broken(:  # MARK syntax\n")
    return await _fails_to_reload(scene, "SyntaxError", "syntax")


async def deploys_failing_prewarm(scene: Scene) -> Facts:
    scene.fails.touch()
    return await _fails_to_reload(scene, "ConnectionError: refused", "prewarm")


async def _fails_to_reload(scene: Scene, cause: str, mark: str) -> Facts:
    scene.began = time.time()
    assert (await scene.worker.ask("POST", "/v1/pool/reload", json={})).status == 409
    return scene.facts(cause, None, mark)


async def opens_breaker(scene: Scene) -> Facts:
    scene.fails.touch()
    await scene.call("stay")  # takes the only idle process; no other becomes warm
    began = scene.began
    await scene.worker.until("/readyz", lambda answer: (answer.body.get("reason")) == "breaker_open")
    call = await scene.is_rejected("breaker_open")
    scene.began = began
    return scene.facts("prewarm raised ConnectionError", call, "prewarm")


async def is_full(scene: Scene) -> Facts:
    await scene.call("stay")
    return scene.facts("max_jobs", await scene.is_rejected("full"))


async def lacks_memory(scene: Scene) -> Facts:
    return scene.facts("min_free_memory_mb", await scene.is_rejected("memory"))


async def loads(scene: Scene) -> Facts:
    await scene.ends(signal.SIGTERM)
    scene.gate.unlink()
    await scene.start()
    return scene.facts("the app is still being loaded", await scene.is_rejected("warming"))


async def drains(scene: Scene) -> Facts:
    call = await scene.call("stay")
    await scene.ends(signal.SIGTERM)
    await scene.start()
    return scene.facts("drained", call.id)


async def loses_worker(scene: Scene) -> Facts:
    call = await scene.call("stay")
    await scene.is_in_history(call.id)
    await scene.ends(signal.SIGKILL)
    await scene.start()
    await scene.worker.until(f"/v1/jobs/{call.id}", lambda answer: answer.status == 200 and answer.body["cause"])
    return scene.facts("lost with the worker", call.id)


async def called_at_a_time(scene: Scene) -> Facts:
    call = await scene.call("return")
    report = await scene.worker.report(call.id)
    started = report["timings"]["started"]
    await clock_passes(report["timings"]["ended"] + 1.0)
    facts = scene.facts(None, call.id, absent="another caller", words=_clocks(started))
    await scene.call("stay", "another caller")
    return facts


def _clocks(at: float) -> dict[str, str]:
    """Return a time by the clock of the operator with a browser, and of the one with a terminal."""
    moment = datetime.fromtimestamp(at, UTC)
    return {
        "clock_there": moment.astimezone(ZONE).strftime("%H:%M:%S"),
        "clock_here": moment.astimezone().strftime("%H:%M:%S"),
    }


# --- the table -----------------------------------------------------------------------------------

CALL = "**Calls**, then the cause"
WORKER = "section **Worker**"
REJECTED = "section **Rejected**, then the reason"
SHOWN = ("problems", "jobs show {call}")


Occurs = Callable[[Scene], Awaitable[Facts]]


def of_call(name: str, happened: str, occurs: Occurs, cause: str, **more: object) -> Incident:
    """A call that has ended. ``cause`` is the text that groups its failure with others."""
    reason = cause.partition(":")[0].rpartition(" ")[2]
    known = {"page": CALL, "clicks": ("Calls", cause), "commands": SHOWN}
    log = {"event": "process_ended", "reason": reason}
    return Incident(name, happened, occurs, **({"log": log, "place_in": log} | known | more))  # type: ignore[arg-type]


def of_rejection(name: str, happened: str, occurs: Occurs, reason: str, *options: str) -> Incident:
    log = {"event": "turned_down", "reason": reason}
    return Incident(name, happened, occurs, REJECTED, (reason,), ("problems",), log, options=options)


PREWARM = {"event": "process_ended", "reason": "prewarm_failed"}

INCIDENTS = (
    of_call("killed", "A call's process was killed from outside", killed, "killed, signaled: SIGKILL"),
    of_call("crash", "A call crashed in native code", ended("crash", "SIGABRT"), "killed, signaled: SIGABRT"),
    of_call("exception", "A call raised an exception", ended("raise", "KeyError"), "failed, raised: KeyError"),
    Incident(
        "stuck",
        "The event loop of a live call is blocked",
        is_stuck,
        "**Calls**, then the call, then **Show the stack**",
        ("Calls", "call-1", "Show the stack"),
        ("problems", "jobs stack {call}"),
        None,
        options=("--stall-timeout", "off"),
    ),
    of_call(
        "blocked",
        "A call was ended because its event loop was blocked",
        ended("block", "its event loop stood still"),
        "killed, stalled",
        options=("--stall-timeout", "3"),
    ),
    of_call(
        "leak",
        "A call used more memory than `memory_limit_mb`",
        ended("leak", "memory_limit_mb is 300"),
        "killed, memory_limit",
        options=("--memory-limit-mb", "300"),
    ),
    of_rejection(
        "memory", "Calls are rejected for lack of memory", lacks_memory, "memory", "--min-free-memory-mb", "99999999"
    ),
    of_call(
        "hang-up",
        "A call did not end after its hang-up",
        lingers,
        "killed, cancelled",
        options=("--shutdown-timeout", "1"),
    ),
    Incident(
        "zygote",
        "The zygote was lost; calls go on",
        loses_zygote,
        WORKER,
        (),
        ("problems",),
        {"event": "zygote_lost"},
    ),
    Incident(
        "syntax",
        "A deploy has a syntax error; the old code serves",
        deploys_syntax_error,
        WORKER,
        (),
        ("problems",),
        {"event": "reload_failed"},
        place_in={"event": "reload_failed"},
    ),
    Incident(
        "prewarm",
        "A deploy's prewarm fails; the old code serves",
        deploys_failing_prewarm,
        f"{WORKER}; the line is under **Failed sessions**",
        (),
        ("problems",),
        {"event": "reload_failed"},
        place_in=PREWARM,
    ),
    Incident(
        "breaker",
        "The breaker is open: no process becomes warm",
        opens_breaker,
        f"{WORKER}; the line is under **Failed sessions**, the calls under **Rejected**",
        ("breaker_open",),
        ("problems",),
        {"event": "turned_down", "reason": "breaker_open"},
        place_in=PREWARM,
    ),
    of_rejection("full", "Calls are rejected because the worker is full", is_full, "full", "--max-jobs", "1"),
    of_rejection("loading", "Calls came while the app was loaded", loads, "warming", "--preload-timeout", "600"),
    of_call("drain", "A drain cut calls", drains, "cancelled, drained"),
    of_call(
        "lost",
        "The worker was killed, and its calls with it",
        loses_worker,
        "lost with the worker",
        log={"event": "job_lost", "cause": "lost with the worker"},
        place_in={},
    ),
    Incident(
        "time",
        "Who called at 14:05?",
        called_at_a_time,
        "**Calls**, then search `at:14:05`",
        ("Calls", "?at:{clock_there}"),
        ("jobs find at:{clock_here}",),
        {"event": "job_started"},
    ),
)

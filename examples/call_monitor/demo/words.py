"""What the demo says in sentences, on a terminal and without."""

from __future__ import annotations

from .scene import Call, Scene

STARTING = "starting the worker: it loads the model once, in its zygote"


def beginning(call: Call) -> str:
    return f"{call.caller} started {call.launch_type} in {call.start_ms:.0f} ms, pid {call.pid}"


def ending(call: Call) -> str:
    """How a call ended, or why nobody knows."""
    if call.report is None:
        return f"{call.caller} was lost: {call.trouble}"
    return f"{call.caller} {call.report['outcome']}, {call.report['reason']}: {call.report['detail']}"


def suggestion(scene: Scene) -> str:
    """Pids to try the supervision on, of processes that are there now."""
    running, idle, zygote = scene.running(), scene.idle_pids(), scene.pool["zygote_pid"]
    victims = [(running[-1].pid, "a call")] if running else []
    victims += [(idle[-1], "an idle process")] if idle else []
    victims += [(zygote, "the zygote")] if zygote else []
    return "try, in another terminal: " + " · ".join(f"kill -9 {pid} ({what})" for pid, what in victims)

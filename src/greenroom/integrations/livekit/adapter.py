"""A livekit-agents app as an app of Greenroom's: what the zygote and its children call, and when."""

from __future__ import annotations

import logging
import os
from typing import Any

from livekit.agents import AgentServer, WorkerOptions

from ...app import App
from ...job import JobContext, JobProcess
from . import inference, inference_service, running_job
from .app_settings import of_log, settings_of
from .blueprint import Blueprint, maker_of, server_of
from .log_levels import COMMAND, Level, set_levels
from .manifest import describe, runs_in_threads
from .orders import Order
from .performer import Performer, check_release
from .preload import preload
from .requests import RequestHook

__all__ = ["adapt", "warn_of_events"]

_EVENTS = ("worker_started", "worker_registered")

_logger = logging.getLogger("greenroom.livekit")


def adapt(source: AgentServer | WorkerOptions, *, is_handed: bool = False) -> App:
    """Make an app that runs this server's jobs. Raises :class:`AppLoadError` if it has none to run.

    ``is_handed``: a script has handed it over, where handlers that are not called have been named.
    """
    blueprint = Blueprint.of(server_of(source))
    check_release(blueprint.part)
    if runs_in_threads(blueprint.server):
        _logger.warning("job_executor_type is THREAD: under Greenroom each job has a process of its own")
    if not is_handed:
        warn_of_events(blueprint.server)
    role = _Role(blueprint)
    app = App()
    app.end_timeout = blueprint.part.end_timeout
    app.logs_its_errors = True
    app.prewarm_name = "setup_fnc" if maker_of(source) == "AgentServer" else "prewarm_fnc"
    manifest = app.manifest["livekit"] = describe(blueprint, source)
    options, maker, command = manifest["options"], maker_of(source), os.environ.get(COMMAND)
    level = Level(options.get("log_level"), os.environ)
    app.log_level = level.number
    app.settings = {**settings_of(options, maker, command), **of_log(level, maker)}
    manifest["log_level"] = None if level.is_operators or level.is_default else level.number
    app.preload(lambda: role.preload(app, level.number))
    app.prewarm(role.prewarm)
    app.entrypoint(role.entrypoint)
    if blueprint.request_fnc is not None:
        app.request(RequestHook(blueprint.request_fnc).ask)
    return app


def warn_of_events(server: AgentServer) -> None:
    """Name handlers of the worker's events: the worker is a process of its own, which does not load the app."""
    for event in _EVENTS:
        handlers = getattr(server, "_events", {}).get(event, ())
        for name in (getattr(handler, "__qualname__", repr(handler)) for handler in handlers):
            _logger.warning(
                "%s is not called: under Greenroom the app has no %s event. Do that in setup_fnc, at the top level of "
                "the module, or by whatever watches /readyz", name, event,
            )  # fmt: skip


class _Role:
    """The app's functions. In each process a copy of its own, since it is forked with all the rest."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._performer: Performer

    def preload(self, app: App, level: int) -> None:
        set_levels(level)
        preload(self._blueprint)
        inference_service.register(app)

    async def prewarm(self, process: JobProcess) -> None:
        infer = inference.InferenceClient(process.generation).run
        self._performer = Performer(self._blueprint.part, infer)

    async def entrypoint(self, context: JobContext) -> dict[str, Any]:
        order = Order.decode(context.job.metadata)
        return await self._performer.run(context, running_job.from_order(order))

"""Adapter that makes a livekit-agents app an app of Greenroom's, with the functions that zygote and children call."""

from __future__ import annotations

import logging
import os
from typing import Any

from livekit.agents import AgentServer, WorkerOptions

from ....app import App
from ....job import JobContext, JobProcess
from ..job_order import JOB, LOAD, WORKER, Order
from . import inference, inference_service, running_job
from .agent_server_options import of_log, of_request, settings_of
from .blueprint import Blueprint, maker_of, server_of
from .livekit_job_run import LiveKitJobRun, check_release
from .livekit_request_hook import RequestHook
from .log_levels import COMMAND, Level, set_levels
from .manifest import describe, runs_in_threads
from .preload import preload
from .worker_view import WorkerView, handlers_of

__all__ = ["adapt"]

_logger = logging.getLogger("greenroom.livekit")


def adapt(source: AgentServer | WorkerOptions) -> App:
    """Make an app that runs this server's jobs. Raises :class:`AppLoadError` if Greenroom cannot run them."""
    blueprint = Blueprint.of(server_of(source))
    check_release(blueprint.part)
    if runs_in_threads(blueprint.server):
        _logger.warning("job_executor_type is THREAD: under Greenroom each job has a process of its own")
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
        app.settings = {**of_request(), **app.settings}
    _take_part(app, blueprint, is_dev=command == "dev")
    return app


def _take_part(app: App, blueprint: Blueprint, *, is_dev: bool) -> None:
    """Register the app's handlers of questions and news to the resident process, if the app needs any."""
    view = WorkerView(blueprint.server, blueprint.load_fnc, is_dev=is_dev)
    if blueprint.load_fnc is not None:
        app.answers[LOAD] = view.load
        app.hears[JOB] = view.note_job
    if blueprint.load_fnc is not None or handlers_of(blueprint.server):
        app.hears[WORKER] = view.note_worker


class _Role:
    """Functions of the app. Each process has its own copy, since a fork copies this object."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._job_run: LiveKitJobRun

    def preload(self, app: App, level: int) -> None:
        set_levels(level)
        preload(self._blueprint)
        inference_service.register(app)

    async def prewarm(self, process: JobProcess) -> None:
        infer = inference.InferenceClient(process.generation).run
        self._job_run = LiveKitJobRun(self._blueprint.part, infer)

    async def entrypoint(self, context: JobContext) -> dict[str, Any]:
        order = Order.decode(context.job.metadata)
        return await self._job_run.run(context, running_job.from_order(order))

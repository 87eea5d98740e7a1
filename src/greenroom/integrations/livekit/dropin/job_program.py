"""App of Greenroom's from the functions of LiveKit's worker, for the zygote and its children."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

from ....app import App
from ....job import JobContext, JobProcess
from ..agent import running_job
from ..agent.blueprint import Part, nothing_to_set_up
from ..agent.livekit_job_run import LiveKitJobRun, check_release
from ..agent.preload import share
from ..agent.references import resolve
from .inference import infer

__all__ = ["make_app"]


def make_app(settings: Mapping[str, Any]) -> App:
    """Make the app of a worker. ``settings.child_settings`` returns the settings. Imports the user's code."""
    role = _Role(_part(settings), settings)
    app = App()
    app.end_timeout = role.end_timeout
    app.logs_its_errors = True
    app.preload(role.preload)
    app.prewarm(role.prewarm)
    app.entrypoint(role.entrypoint)
    return app


class _Role:
    """Functions of the app. Each process has its own copy."""

    def __init__(self, part: Part, settings: Mapping[str, Any]) -> None:
        check_release(part)
        self._part = part
        self._settings = settings
        self._job_run: LiveKitJobRun

    @property
    def end_timeout(self) -> float:
        """Seconds for LiveKit's whole sequence, which here includes the callbacks, within ``close_timeout``."""
        return self._part.end_timeout + float(self._settings["close_timeout"])

    def preload(self) -> None:
        share(self._settings["preload"])
        for name, level in self._settings["log_levels"].items():
            logging.getLogger(name).setLevel(level)

    async def prewarm(self, process: JobProcess) -> None:
        ask = functools.partial(infer, self._settings["inference"])
        self._job_run = LiveKitJobRun(self._part, ask, self._settings["close_timeout"])

    async def entrypoint(self, context: JobContext) -> dict[str, Any]:
        return await self._job_run.run(context, running_job.from_plain(context.job.metadata))


def _part(settings: Mapping[str, Any]) -> Part:
    functions = {name: resolve(found) for name, found in settings["functions"].items()}
    return Part(
        entrypoint_fnc=functions["job_entrypoint_fnc"],
        setup_fnc=functions["initialize_process_fnc"] or nothing_to_set_up,
        session_end_fnc=functions["session_end_fnc"],
        simulation_end_fnc=functions["simulation_end_fnc"],
        session_end_timeout=settings["session_end_timeout"],
        http_proxy=settings["http_proxy"],
    )

"""A job that is none, run by each process before it is idle.

After a fork every page that the process writes to, if only to count a reference, is first copied:
some microseconds each, and a hundred or more of them on the way from the order to the entrypoint.
Going that way once beforehand leaves the real session none of it to pay.

The zygote goes that way too, before it forks and more than once: what Python writes into code when it
runs for the first times (inline caches, specialised instructions, PEP 659) is then written once, and
shared.
"""

from __future__ import annotations

import asyncio

from ..app import App
from ..job import Job, JobContext, JobProcess
from ..wire import messages as m
from ..wire import payload
from ..wire.frames import FrameDecoder
from .app_thread import AppThread
from .performance import Performance

__all__ = ["rehearse", "rehearse_in_zygote"]

_TIMES = 32  # more than the interpreter waits for before it specialises


async def rehearse(proc: JobProcess, settings: m.ChildSettings) -> None:
    """Receive an order, acknowledge it, run it and report its end; nothing of it leaves the process."""
    decoder = FrameDecoder()
    for frame in decoder.feed(m.encode(m.Start("rehearsal"), payload.encode(None))):
        start: m.Start = m.decode(frame, m.Start)
        context = JobContext(Job.from_payload(start.job_id, frame.body), proc)
        performance = Performance(_app(), context, settings, AppThread())
        m.encode(m.Started(start.job_id))
        end, result = await performance.run()
        m.encode(m.Ended(end.how, end.told, end.error), result)
        await performance.run_callbacks()


def rehearse_in_zygote(settings: m.ChildSettings) -> None:
    """Warm code and caches that every child will use. Leaves no event loop behind."""
    loop = asyncio.new_event_loop()
    try:
        for _ in range(_TIMES):
            loop.run_until_complete(rehearse(JobProcess(0), settings))
    finally:
        loop.close()


def _app() -> App:
    app = App()

    @app.entrypoint
    async def entrypoint(context: JobContext) -> object:
        return context.job.metadata

    return app

"""Warm-up run: a dummy job that each process runs before it becomes idle.

After a fork, the kernel copies each page of memory when the process first writes to it. Even a change of a reference
count is such a write. A copy takes some microseconds. A job causes a hundred copies or more between its start message
and its entrypoint. The warm-up run causes these copies earlier, so that they do not delay the real job.

The zygote also does warm-up runs before it forks. Python writes into code when the code runs for the first times
(inline caches, specialised instructions, PEP 659). After these runs the writes are done, and all children share them.
"""

from __future__ import annotations

import asyncio

from ..app import App
from ..job import Job, JobContext, JobProcess
from ..wire import messages as m
from ..wire import payload
from ..wire.frames import FrameDecoder
from .app_thread import AppThread
from .job_run import JobRun

__all__ = ["warm_up", "warm_up_zygote"]

_TIMES = 32  # more than the interpreter needs before it specialises code


async def warm_up(proc: JobProcess, settings: m.ChildSettings) -> None:
    """Receive a start message, acknowledge it, run the dummy job, and report its end. No message leaves the process."""
    decoder = FrameDecoder()
    for frame in decoder.feed(m.encode(m.Start("warm-up"), payload.encode(None))):
        start: m.Start = m.decode(frame, m.Start)
        context = JobContext(Job.from_payload(start.job_id, frame.body, start.trace_parent), proc)
        job_run = JobRun(_app(), context, settings, AppThread())
        m.encode(m.Started(start.job_id))
        end, result = await job_run.run()
        m.encode(m.Ended(end.how, end.end_was_asked, end.error), result)
        await job_run.run_callbacks()


def warm_up_zygote(settings: m.ChildSettings) -> None:
    """Warm up the code and caches that every child will use. No event loop is left behind."""
    loop = asyncio.new_event_loop()
    try:
        for _ in range(_TIMES):
            loop.run_until_complete(warm_up(JobProcess(0), settings))
    finally:
        loop.close()


def _app() -> App:
    app = App()

    @app.entrypoint
    async def entrypoint(context: JobContext) -> object:
        return context.job.metadata

    return app

"""One agent in the styles in which people write its main block: the environment's STYLE says which."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence

from livekit.agents import AgentServer, JobContext, JobProcess, WorkerOptions, cli
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

STYLE = os.environ["STYLE"]
OPTIONS = {"num_idle_processes": 1, "load_fnc": lambda: 0.0, "initialize_process_timeout": 60.0, "port": 0}
GREETING = "at the top level"

logger = logging.getLogger("styles")
server = AgentServer(**OPTIONS)
provider = TracerProvider()


class Exporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            logger.info("exported the span %s", span.name)
        return SpanExportResult.SUCCESS


if STYLE == "debug":
    provider.add_span_processor(BatchSpanProcessor(Exporter()))  # which starts a thread at import


async def call(ctx: JobContext, greeting: str) -> None:
    async def ended(reason: str) -> None:
        logger.info("call ended: %s", reason)

    async def no_callback(reason: str) -> None:
        raise LookupError("no such callback")

    ctx.add_shutdown_callback(ended)
    ctx.add_shutdown_callback(no_callback)
    await ctx.connect()
    logger.info("greeted %s; set up: %s", greeting, ctx.proc.userdata)
    logger.debug("heard if it is asked for")
    with provider.get_tracer("styles").start_as_current_span("of this call"):
        pass
    await asyncio.to_thread(provider.force_flush)
    if STYLE == "raises":
        raise RuntimeError("told to raise")
    ctx.shutdown("told enough")


async def entrypoint(ctx: JobContext) -> None:
    await call(ctx, GREETING)


async def greet(greeting: str, ctx: JobContext) -> None:
    await call(ctx, greeting)


class Receptionist:
    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    async def entrypoint(self, ctx: JobContext) -> None:
        await call(ctx, self.greeting)


class Lines(logging.Formatter):
    """The log of a script that sets it up itself, since it leaves LiveKit's command line out."""

    def format(self, record: logging.LogRecord) -> str:
        told = {"message": record.getMessage(), "level": record.levelname, "name": record.name}
        return json.dumps({**told, "pid": getattr(record, "pid", None)})


def setup(proc: JobProcess) -> None:
    proc.userdata["by"] = "setup"


def setup_with_thread(proc: JobProcess) -> None:
    """What must not be started at import: a thread that works for the process."""
    orders, answers = queue.Queue[str](), queue.Queue[str]()
    threading.Thread(target=lambda: answers.put(orders.get() + " by a thread"), daemon=True).start()
    orders.put("done")
    proc.userdata["work"] = answers.get()


async def session_ended(ctx: JobContext) -> None:
    logger.info("session ended")


def options(entrypoint_fnc: object, **more: object) -> WorkerOptions:
    return WorkerOptions(entrypoint_fnc=entrypoint_fnc, agent_name=STYLE, **OPTIONS, **more)


def main() -> None:
    global GREETING
    GREETING = "in the block"  # of this process alone
    match STYLE:
        case "top level" | "raises" | "debug":
            server.rtc_session(entrypoint, agent_name=STYLE, on_session_end=session_ended)
            cli.run_app(server)
        case "changed":
            server.setup_fnc = setup
            server.rtc_session(entrypoint, agent_name=STYLE)
            cli.run_app(server)
        case "in main":
            own = AgentServer(setup_fnc=setup, **OPTIONS)
            own.rtc_session(entrypoint, agent_name=STYLE, on_session_end=session_ended)
            cli.run_app(own)
        case "partial":
            cli.run_app(options(functools.partial(greet, "by a partial")))
        case "method":
            cli.run_app(options(Receptionist("by a method").entrypoint))
        case "run":
            logging.basicConfig(level=logging.INFO, handlers=[to_stdout := logging.StreamHandler(sys.stdout)])
            to_stdout.setFormatter(Lines())
            own = AgentServer(setup_fnc=setup, **OPTIONS)
            own.rtc_session(entrypoint, agent_name=STYLE, on_session_end=session_ended)
            asyncio.run(own.run())
        case "thread":
            cli.run_app(options(entrypoint, prewarm_fnc=setup_with_thread))


if __name__ == "__main__":
    main()

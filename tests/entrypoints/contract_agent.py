"""An agent as its author would write it, for each release of livekit-agents: see ``contract_scenario``."""

import asyncio
import inspect
import sys

from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobProcess, JobRequest, get_job_context
from livekit.agents.inference_runner import _InferenceRunner
from livekit.agents.utils import http_context


class Reverse(_InferenceRunner):
    INFERENCE_METHOD = "reverse"

    def initialize(self) -> None: ...

    def run(self, data: bytes) -> bytes:
        return data[::-1]


_InferenceRunner.register_runner(Reverse)

AGENT = {"agent_name": "greeter"}
IS_NAMED_BY_SERVER = "agent_name" in inspect.signature(AgentServer).parameters  # since livekit-agents 2
server = AgentServer(num_idle_processes=2, **(AGENT if IS_NAMED_BY_SERVER else {}))


def setup(process: JobProcess) -> None:
    process.userdata["weights"] = asyncio.run(load())


async def load() -> str:
    return "loaded"


server.setup_fnc = setup


def load_of(worker: AgentServer) -> float:
    """Ask LiveKit's own code whether this worker would take a job, with the jobs that it is shown."""
    assert worker is server
    worker._worker_load = len(worker.active_jobs) / 10
    judge = getattr(worker, "_is_available", None)  # livekit-agents 2 has it elsewhere
    print("load", worker.id, [info.job.id for info in worker.active_jobs], *([judge()] if judge else []))
    return worker._worker_load


server.load_fnc = load_of


@server.on("worker_started")
def started() -> None:
    print("load started", server.id)


@server.on("worker_registered")
def registered(worker_id: str, info: object) -> None:
    print("load registered", worker_id, type(info).__name__)


async def on_request(request: JobRequest) -> None:
    if request.job.metadata == "refuse":
        await request.reject()
    else:
        await request.accept(name="Ada", attributes={"floor": "1"})


async def on_session_end(ctx: JobContext) -> None:
    print(ctx.job.metadata, "session end")


@server.rtc_session(on_request=on_request, on_session_end=on_session_end, **({} if IS_NAMED_BY_SERVER else AGENT))
async def entrypoint(ctx: JobContext) -> None:
    how = ctx.job.metadata

    async def callback(reason: str) -> None:
        print(how, "callback", reason)

    ctx.add_shutdown_callback(callback)
    assert ctx.proc.userdata == {"weights": "loaded"}
    assert get_job_context() is ctx
    assert http_context.http_session() is not None
    assert rtc._ffi_client.FfiClient._instance is not None
    await ctx.connect()
    if how == "restarted":
        print(how, ctx.job.attributes["greenroom.restarts"], ctx._info.accept_arguments.identity)
    if how == "raise":
        raise LookupError("no such table")
    if how == "exit":
        sys.exit(3)
    if how == "infer":
        print(how, await ctx.inference_executor.do_inference("reverse", b"abc"))
    if how == "wait":
        print(how, "waits")
        await asyncio.sleep(1000)
    ctx.shutdown("over")

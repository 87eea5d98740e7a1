"""One pool, one agent, each way a job can go; run by the Python of a release's environment. Prints JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

from livekit.protocol import agent, models
from livekit_orders import order

from greenroom import Accept, ProcessPool, Reject
from greenroom.integrations.livekit.job_order import JOB, LOAD, STARTED, WORKER, Acceptance

AGENT = Path(__file__).with_name("contract_agent.py")


class Lines(logging.Handler):
    """What the agent has printed."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = asyncio.Event()
        self.all: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "greenroom.app":
            self.all.append(record.getMessage())
        if record.getMessage() == "wait waits":
            self.waits.set()


async def main() -> dict[str, object]:
    lines = Lines()
    logging.basicConfig(level=logging.INFO, handlers=[lines, logging.StreamHandler(sys.stderr)])
    found: dict[str, object] = {}
    async with ProcessPool(str(AGENT), num_idle_processes=1, shutdown_timeout=4.0) as pool:
        found["manifest"] = pool.manifest["livekit"]
        pool.resident.set_news(WORKER, STARTED, b"")
        registered = agent.RegisterWorkerResponse(worker_id="AW_1", server_info=models.ServerInfo())
        pool.resident.set_news(WORKER, "a server", registered.SerializeToString())
        loads = [await pool.resident.ask(LOAD, {"reserved": 1}, timeout=30.0)]
        pool.resident.set_news(JOB, "AJ_1", order(accept=Acceptance(identity="ada")))
        found["loads"] = [*loads, await pool.resident.ask(LOAD, {"reserved": 6}, timeout=30.0)]
        for how in ("refuse", "take"):
            reservation = await pool.reserve(order(how), timeout=30.0)
            verdict = await reservation.ask()
            reservation.release("seen")
            found[how] = (
                verdict.answer if isinstance(verdict, Accept) else isinstance(verdict, Reject) and verdict.final
            )
        accept = Acceptance(identity="agent-x")
        for how in ("raise", "exit", "infer", "restarted", "stop"):
            handle = await pool.launch(order(how, restarts=1, accept=accept), timeout=30.0)
            report = await handle.wait()
            found[how] = [report.outcome, report.reason, report.error and report.error.type, report.result]
        handle = await pool.launch(order("wait"), timeout=30.0)
        await lines.waits.wait()
        handle.cancel("enough")
        report = await handle.wait()
        found["wait"] = [report.outcome, report.reason, report.error and report.error.type, report.result]
    known = ("load ", "raise ", "exit ", "infer ", "restarted ", "stop ", "wait ")
    found["lines"] = [line for line in lines.all if line.startswith(known)]
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(asyncio.wait_for(main(), 100))))

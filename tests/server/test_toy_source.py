"""A source of jobs in a few lines: a folder, each file of which is a job. It imports nothing of server/ or pool/."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from support import DEADLINE

SOURCE = """
import asyncio, pathlib, sys
from greenroom import GreenroomError
from greenroom.sources import Offer
from greenroom.wire import payload

class Folder:
    name, state = "folder", "closed"

    def attach(self, host):
        self.host = host

    def status(self):
        return {"state": self.state}

    async def open(self):
        self.state = "open"
        for path in pathlib.Path(sys.argv[2]).iterdir():
            self.host.spawn(self.serve(path), f"serve {path.name}")

    async def serve(self, path):
        try:
            data = payload.encode(path.read_bytes())
            acceptance = await self.host.offer(Offer(self.name, data, labels={"file": path.name}))
            report = await acceptance.start().wait()
            print(path.name, report.outcome, report.labels, report.result, flush=True)
        except GreenroomError as error:
            print(path.name, type(error).__name__, error, flush=True)

    def pause(self):
        self.state = "paused"

    async def close(self):
        pass
"""
MAIN = """
from greenroom.server import Worker
from greenroom.settings.layers import resolve
worker = Worker(sys.argv[1], resolve("start", flags={"port": "0"}, environ={}), more_sources=[Folder()])
sys.exit(asyncio.run(worker.run()))
"""
APP = """
@app.request
def request(request):
    return greenroom.Reject("no") if request.job.metadata == b"unwanted" else greenroom.Accept()

@app.entrypoint
async def entrypoint(ctx):
    return len(ctx.job.metadata)
"""


async def test_a_source_is_added_without_a_change_of_greenroom(make_app: Callable[[str], str], tmp_path: Path) -> None:
    (calls := tmp_path / "calls").mkdir()
    (calls / "one").write_bytes(b"hello")
    (calls / "two").write_bytes(b"unwanted")
    (script := tmp_path / "worker.py").write_text(SOURCE + MAIN)
    command = (sys.executable, script, make_app(APP), calls)
    worker = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    async with asyncio.timeout(DEADLINE):
        said = sorted([await worker.stdout.readline(), await worker.stdout.readline()])
        worker.send_signal(signal.SIGTERM)
        assert await worker.wait() == 0
    assert said == [b"one succeeded {'file': 'one'} 5\n", b"two RejectedByApp no\n"]

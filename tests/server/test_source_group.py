"""W1: a source that hangs or fails holds up neither the other sources nor the end of the worker."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from admissions import boundless_admission
from support import DEADLINE

from greenroom import GreenroomError, ProcessPool
from greenroom.server.job_registry import JobRegistry
from greenroom.server.source_group import SourceGroup
from greenroom.sources import Host, Source

MakeApp = Callable[[str], str]


class Scripted:
    """A source that hangs or raises where it is told to, and writes down what it was asked."""

    def __init__(self, name: str, **faults: str) -> None:
        self.name = name
        self.asked: list[str] = []
        self._faults = faults

    def status(self) -> dict[str, Any]:
        return {"state": "open"}

    def attach(self, host: Host) -> None:
        self.host = host

    async def open(self) -> None:
        await self._act("open")

    def pause(self) -> None:
        self.asked.append("pause")
        if "pause" in self._faults:
            raise RuntimeError("cannot pause")

    async def close(self) -> None:
        await self._act("close")

    async def _act(self, what: str) -> None:
        self.asked.append(what)
        if self._faults.get(what) == "hang":
            await asyncio.Event().wait()
        if self._faults.get(what) == "late":
            raise TimeoutError("its server is silent")
        if self._faults.get(what) == "raise":
            raise GreenroomError(f"{self.name} cannot {what}")


def group_of(*sources: Source, **timeouts: float) -> SourceGroup:
    pool = ProcessPool("nowhere.py:app")
    return SourceGroup(sources, pool, boundless_admission(pool, JobRegistry(), 1.0), **timeouts)


async def test_a_source_that_does_not_open_is_named() -> None:
    group = group_of(Scripted("first"), Scripted("second", open="hang"), open_timeout=0.05)
    with pytest.raises(TimeoutError, match=r"source second cannot be opened: no answer within 0\.05 s"):
        await group.open()


async def test_what_a_source_raises_at_its_opening_is_passed_on() -> None:
    with pytest.raises(GreenroomError, match="source first cannot be opened: first cannot open"):
        await group_of(Scripted("first", open="raise")).open()
    with pytest.raises(TimeoutError, match="its server is silent"):
        await group_of(Scripted("first", open="late")).open()


async def test_a_source_that_fails_keeps_no_other_from_being_paused_and_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sources = [
        Scripted("failing", pause="raise", close="raise"),
        Scripted("hanging", close="hang"),
        Scripted("late", close="late"),
        Scripted("fine"),
    ]
    group = group_of(*sources, close_timeout=0.05)
    group.pause()
    await group.close()
    assert [source.asked for source in sources] == [["pause", "close"]] * 4
    assert "source failing failed to close" in caplog.text
    assert "source late failed to close" in caplog.text
    assert "hanging did not close within 0.05 s" in caplog.text


WORKER = """
import asyncio, logging, sys
from greenroom import GreenroomError
from greenroom.server import Worker
from greenroom.settings.layers import resolve

class Source:
    name = "scripted"

    def status(self):
        return {"state": "open"}

    def attach(self, host):
        pass

    async def open(self):
        print("opening", flush=True)
        if "hang" in sys.argv:
            await asyncio.Event().wait()

    def pause(self):
        raise RuntimeError("cannot pause")

    async def close(self):
        raise GreenroomError("cannot close")

logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
resolved = resolve("start", flags={"port": "0"}, environ={})
sys.exit(asyncio.run(Worker(sys.argv[1], resolved, more_sources=[Source()]).run()))
"""


@pytest.mark.parametrize("how", ["hang", "open"])
async def test_S5_sigterm_ends_a_worker_in_order_whatever_a_source_does(
    make_app: MakeApp, tmp_path: Path, how: str
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    app = make_app("@app.entrypoint\nasync def entrypoint(ctx):\n    pass\n")
    worker = await asyncio.create_subprocess_exec(
        sys.executable, script, app, how, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert worker.stdout is not None
    wanted = "opening" if how == "hang" else "to start a session"
    async with asyncio.timeout(DEADLINE):
        while wanted not in (line := (await worker.stdout.readline()).decode()):
            assert line, "it ended before its time"
        worker.send_signal(signal.SIGTERM)
        said = (await worker.stdout.read()).decode()
        assert await worker.wait() == 0, said
    assert "draining: 0 jobs" in said
    assert "source scripted failed to close" in said
    assert said.splitlines()[-1] == "ended"

"""S6 through the real command: SIGHUP, and `dev` when a source file changes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.stage import Stage
from running_worker import RunningWorker

MakeApp = Callable[[str], str]

ANSWERING = """
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "stay":
        await on_stage("job")
    return ANSWER

ANSWER = "old"
"""


def _change(app: str, old: str, new: str) -> None:
    path = Path(app.rpartition(":")[0])
    path.write_text(path.read_text().replace(old, new))


async def _answer(worker: RunningWorker) -> object:
    return (await worker.report((await worker.start())["id"]))["result"]


async def test_S6_sighup_with_broken_code_changes_nothing(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(ANSWERING)
        async with RunningWorker(app, "--num-idle-processes", "1") as worker:
            live = await worker.start("stay")
            visit = await stage.next("job")
            _change(app, 'ANSWER = "old"', "ANSWER = mistake")
            worker.signal(signal.SIGHUP)
            await worker.logs("the old code goes on serving: .*NameError.*mistake")
            await worker.logs("line .* in <module>")  # the traceback of the user's own error
            assert await _answer(worker) == "old"
            await worker.until("/readyz", lambda answer: answer.status == 200)

            _change(app, "ANSWER = mistake", 'ANSWER = "new"')
            worker.signal(signal.SIGHUP)
            await worker.logs("reloaded: generation")
            assert await _answer(worker) == "new"
            visit.order("leave")
            report = await worker.report(live["id"])
            assert (report["result"], report["generation"]) == ("old", 1)
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0


@pytest.mark.parametrize("reference", ["agent.py", "agent:app", "current/agent.py"])
async def test_S6_a_reload_follows_the_link_of_a_deployment(make_app: MakeApp, tmp_path: Path, reference: str) -> None:
    source = Path(make_app(ANSWERING).rpartition(":")[0]).read_text()
    for release in ("old", "new", "broken"):
        (tmp_path / release).mkdir()
        answer = 'ANSWER = "old"' if release == "old" else f"ANSWER = {'mistake' if release == 'broken' else '1'}"
        (tmp_path / release / "agent.py").write_text(source.replace('ANSWER = "old"', answer))
    current = tmp_path / "current"
    current.symlink_to("old")
    place = tmp_path if "/" in reference else current
    # As a shell does it: PWD is the way that was taken.
    async with RunningWorker(
        reference, "--num-idle-processes", "1", cwd=place, env={**os.environ, "PWD": str(place)}
    ) as worker:
        assert await _answer(worker) == "old"

        def deploy(release: str) -> None:
            current.unlink()
            current.symlink_to(release)
            worker.signal(signal.SIGHUP)

        deploy("broken")
        await worker.logs("the old code goes on serving")
        assert await _answer(worker) == "old"
        shutil.rmtree(tmp_path / "old")
        deploy("new")
        await worker.logs("reloaded: generation")
        assert await _answer(worker) == 1


async def test_S6_dev_reloads_when_a_source_file_changes(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(ANSWERING)
        async with RunningWorker(app, command="dev") as worker:
            live = await worker.start("stay")
            visit = await stage.next("job")
            name = Path(app.rpartition(":")[0]).name
            _change(app, 'ANSWER = "old"', "ANSWER = = 1")
            await worker.logs(f"reloading: {name} changed")
            await worker.logs("the old code goes on serving: .*SyntaxError")
            assert await _answer(worker) == "old"
            _change(app, "ANSWER = = 1", 'ANSWER = "new"')
            await worker.logs("reloaded: generation")
            assert await _answer(worker) == "new"
            visit.order("leave")
            assert (await worker.report(live["id"]))["result"] == "old"
            worker.signal(signal.SIGINT)
            assert await worker.ends() == 0


async def test_S6_dev_sees_modules_beside_the_app(make_app: MakeApp, tmp_path: Path) -> None:
    neighbour = tmp_path / "neighbour.py"
    neighbour.write_text("ANSWER = 'old'\n")
    source = """
    import neighbour

    @app.entrypoint
    async def entrypoint(ctx):
        return neighbour.ANSWER
    """
    async with RunningWorker(make_app(source), command="dev") as worker:
        assert await _answer(worker) == "old"
        (tmp_path / "notes.txt").write_text("no source")
        neighbour.write_text("ANSWER = 'new'\n")
        await worker.logs("reloading: neighbour.py changed")
        await worker.logs("reloaded: generation 2")
        assert await _answer(worker) == "new"

"""``greenroom bench`` with real apps."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import GREENROOM
from doctor_commands import TAKES_ARGUMENTS, tell
from support import DEADLINE, wait_for_file

MakeApp = Callable[[str], str]

WAITS = """
@app.entrypoint
async def entrypoint(ctx):
    assert ctx.job.metadata == {"caller": "+1555"}
    await ctx.wait_for_shutdown()
"""
FAILS_TO_WARM = """
@app.prewarm
def prewarm(proc):
    raise ConnectionError("no database")
"""
QUICK = ("--seconds", "20", "--launches", "3", "--burst", "4", "--idle-max", "4", "--hold", "0")
METADATA = ("--metadata", '{"caller": "+1555"}')


async def test_every_figure_is_measured(make_app: MakeApp) -> None:
    told = await tell("bench", make_app(WAITS), *QUICK, *METADATA, "--json")
    assert (told.code, told.err) == (0, "")
    figures = told.json
    assert figures["launch"]["count"] + figures["cold"] == 3
    assert 0 < figures["launch"]["least"] <= figures["launch"]["p50"] <= figures["launch"]["most"]
    assert sum(bar["count"] for bar in figures["histogram"]) == figures["launch"]["count"]
    assert figures["refill"]["count"] == figures["launch"]["count"]
    assert figures["burst"]["sessions"] == figures["burst"]["start"]["count"] == 4
    assert figures["burst"]["failed"] == 0
    assert figures["burst"]["running_private_mb"] > 0
    assert [point["idle"] for point in figures["memory"]][:2] == [1, 2]
    assert figures["memory"][-1]["idle"] >= 4
    assert figures["memory"][-1]["total_mb"] > figures["memory"][0]["total_mb"]


async def test_arguments_reach_the_app_as_under_start(make_app: MakeApp) -> None:
    told = await tell("bench", make_app(TAKES_ARGUMENTS), *QUICK, "--json", "--", "--lang", "fr")
    assert (told.code, told.err) == (0, "")
    assert told.json["launch"]["count"] + told.json["cold"] == 3


async def test_for_people_it_is_drawn_with_characters(make_app: MakeApp) -> None:
    told = await tell("bench", make_app(WAITS), *QUICK, *METADATA)
    assert told.code == 0
    for says in ("launch, claim → acknowledged: p50", "refill", "burst of 4 sessions on ", "1 idle", "█"):
        assert says in told.out


@pytest.mark.more
async def test_a_picture_is_drawn(make_app: MakeApp, tmp_path: Path) -> None:
    picture = tmp_path / "bench.png"
    told = await tell("bench", make_app(WAITS), *QUICK, *METADATA, "--plot", str(picture))
    assert told.code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


async def test_without_matplotlib_it_says_what_to_do(make_app: MakeApp, tmp_path: Path) -> None:
    """An interpreter without it: a finder before all others that finds no matplotlib."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nreal = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'matplotlib' else real(name, package)\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "PATH": str(Path(sys.executable).parent)}
    told = await tell("bench", make_app(WAITS), "--plot", str(tmp_path / "a.png"), env=environment)
    assert (told.code, told.out) == (2, "")
    assert "pip install 'greenroom[plot]'" in told.err


async def test_sessions_that_fail_are_told(make_app: MakeApp) -> None:
    told = await tell("bench", make_app(WAITS), *QUICK, "--json")
    assert told.code == 1
    assert "AssertionError" in told.err
    assert any("raised" in complaint for complaint in told.json["complaints"])
    assert told.json["launch"]["count"] == 3


async def test_a_session_that_does_not_end_does_not_hold_it_up(make_app: MakeApp) -> None:
    source = """
    @app.entrypoint
    async def entrypoint(ctx):
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                pass
    """
    told = await tell("bench", make_app(source), "--seconds", "2", "--shutdown-timeout", "1000", "--json")
    assert told.json["memory"]


async def test_what_was_measured_is_told_even_if_more_processes_do_not_fit(make_app: MakeApp) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))

    options = (*METADATA, "--seconds", "30", "--launches", "2", "--burst", "0", "--idle-max", "64", "--json")
    told = await tell("bench", make_app(WAITS), *options, preexec_fn=lower)
    assert told.code == 1
    assert told.json["launch"]["count"] == 2
    assert "Too many open files" in told.err


async def test_ctrl_c_ends_it_and_its_sessions(make_app: MakeApp, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    source = f"""
    from pathlib import Path

    @app.entrypoint
    async def entrypoint(ctx):
        Path({str(told)!r}).write_text(str(os.getpid()))
        await asyncio.sleep(1000)
    """
    options = ("--seconds", "100", "--launches", "1", "--hold", "100")
    process = await asyncio.create_subprocess_exec(GREENROOM, "bench", make_app(source), *options)
    await wait_for_file(told)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(DEADLINE):
        assert await process.wait() == 130


async def test_an_app_that_does_not_load_and_one_that_does_not_warm(make_app: MakeApp) -> None:
    told = await tell("bench", make_app("import no_such_module"), "--json")
    assert told.code == 3
    assert "no_such_module" in told.json["error"]
    told = await tell("bench", make_app(FAILS_TO_WARM + WAITS))
    assert told.code == 1
    assert "no database" in told.err


async def test_what_is_not_understood_exits_with_2(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(WAITS)
    for arguments, says in (
        (["--metadata", "{"], "not JSON"),
        (["--seconds", "0"], "--seconds"),
        (["--plot", str(tmp_path / "a.docx")], ".png"),
        (["--plot", str(tmp_path / "none" / "a.png")], "no folder"),
    ):
        told = await tell("bench", app, *arguments)
        assert (told.code, told.out) == (2, "")
        assert says in told.err

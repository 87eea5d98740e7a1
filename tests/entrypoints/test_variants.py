"""Variants that take nearly the same way through the code as what ``make test`` runs.

Each loads livekit-agents anew, which takes seconds of CPU. ``make test-more`` runs them, and so does CI.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_app_options import (
    AGENT,
    OLDER,
    check_config,
    check_that_a_pool_goes_by_it,
    check_time_of_setup,
    check_time_to_end,
)
from test_log_levels import agent as logging_agent
from test_log_levels import check_levels, check_what_a_worker_shows
from test_main_block import BLOCK, ENTRYPOINT, RUN_APP, check_module_of_package, check_that_it_is_run_once
from test_native_runtime import check_library
from test_stack_dumps import check_own_handler

pytestmark = pytest.mark.more

MakeAgent = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVEKIT_LOG_LEVEL", "GREENROOM_LOG_LEVEL", "GREENROOM_COMMAND"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "source",
    [
        BLOCK + RUN_APP,
        """
def main():
    from livekit.agents.cli import run_app
    try:
        run_app(WorkerOptions(entrypoint_fnc=entrypoint, agent_name="greeter", num_idle_processes=7))
    except Exception:
        raise SystemExit(1)

if "__main__" == __name__:
    note("block", os.getpid())
    main()
""",
        """
server = AgentServer()
server.rtc_session(entrypoint, agent_name="greeter")
"""
        + BLOCK
        + """
    server.update_options(num_idle_processes=7)
    asyncio.run(server.run())
""",
        """
async def main():
    server = AgentServer(num_idle_processes=7)
    server.rtc_session(entrypoint, agent_name="greeter")
    await asyncio.gather(server.run(), asyncio.sleep(3600))
"""
        + BLOCK
        + "    asyncio.run(main())",
        """
options = WorkerOptions(entrypoint_fnc=entrypoint, num_idle_processes=7)
"""
        + BLOCK
        + """
    options.agent_name = "greeter"
    cli.run_app(options)
""",
        """
server = AgentServer(load_threshold=float("inf"))

@server.rtc_session(agent_name="greeter")
async def answer(ctx):
    await entrypoint(ctx)


if __name__ != "__main__":
    pass
else:
    note("block", os.getpid())
    server._num_idle_processes = 7
    cli.run_app(server)
""",
    ],
)
async def test_a_main_block_of_any_spelling_is_run_once(make_agent: MakeAgent, source: str) -> None:
    await check_that_it_is_run_once(make_agent(ENTRYPOINT + source))


@pytest.mark.parametrize("place", ["voice.agent", "voice/__main__.py"])
async def test_a_module_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    await check_module_of_package(tmp_path, monkeypatch, place)


@pytest.mark.parametrize(("start_method", "source"), [("zygote", AGENT), ("spawn", OLDER)])
async def test_a_pool_goes_by_what_the_app_sets(make_agent: MakeAgent, start_method: str, source: str) -> None:
    await check_that_a_pool_goes_by_it(make_agent, start_method, source)


async def test_a_setup_in_a_spawned_process_has_the_time_that_the_app_gives_it(make_agent: MakeAgent) -> None:
    await check_time_of_setup(make_agent, "spawn")


async def test_a_job_in_a_spawned_process_has_the_time_to_end_that_the_app_gives_it(make_agent: MakeAgent) -> None:
    await check_time_to_end(make_agent, "spawn")


def test_config_for_start_runs_the_script_for_start(make_agent: MakeAgent, tmp_path: Path) -> None:
    check_config(make_agent, tmp_path, "start", idle="9", drain="80")


async def test_loggers_have_levels_of_their_own_in_spawned_processes(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    await check_levels(make_agent(logging_agent()), caplog, "spawn")


async def test_the_worker_shows_what_its_operator_asks_for(make_agent: MakeAgent) -> None:
    await check_what_a_worker_shows(make_agent(logging_agent()), ("--log-level", "debug"), "debug")


async def test_a_plugin_that_loads_its_library_at_import_has_it_in_a_spawned_process(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    await check_library(make_agent, tmp_path, "spawn")


async def test_a_faulthandler_of_the_app_stays_in_place(make_agent: MakeAgent) -> None:
    await check_own_handler(make_agent, "faulthandler")

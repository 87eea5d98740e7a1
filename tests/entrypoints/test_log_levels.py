"""The loggers of LiveKit and of its plugins are heard from the levels that LiveKit's own command line sets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit_orders import order
from server.running_worker import RunningWorker

from greenroom import ProcessPool

MakeAgent = Callable[[str], Path]

AGENT = """
from livekit.agents import Plugin, metrics
from livekit.agents.metrics import STTMetrics

class Check(Plugin):
    def __init__(self):
        super().__init__("livekit.plugins.check", "1", "json", logging.getLogger("livekit.plugins.check"))

Plugin.register_plugin(Check())
server = AgentServer(ws_url="ws://127.0.0.1:9", api_key="key", api_secret="a secret of thirty-two characters", OPTIONS)

def setup(proc):
    tell("setup")

server.setup_fnc = setup

def tell(where):
    for name in ("livekit", "livekit.agents", "livekit.plugins.check", "httpx", "mine"):
        for level in (10, 20, 30):
            logging.getLogger(name).log(level, "%s: %s %d", where, name, level)

@server.rtc_session()
async def entrypoint(ctx: JobContext):
    await ctx.connect()
    metrics.log_metrics(STTMetrics(label="stt", request_id="r", timestamp=1.0, duration=0.1, audio_duration=4.5,
                                   streamed=True))
    tell("job")
    ctx.shutdown("done")
"""

LEVELS = {"debug": 10, "info": 20, "warning": 30}


def told(where: str, level: str) -> set[str]:
    """What is logged if LiveKit's command line has this level."""
    quiet = {f"{where}: {name} 30" for name in ("livekit", "httpx")}
    own = ("livekit.agents", "livekit.plugins.check", "mine")
    return quiet | {f"{where}: {name} {number}" for name in own for number in (10, 20, 30) if number >= LEVELS[level]}


def agent(options: str = "") -> str:
    return AGENT.replace("OPTIONS", options)


@pytest.fixture(autouse=True)
def no_levels_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVEKIT_LOG_LEVEL", "GREENROOM_LOG_LEVEL", "GREENROOM_COMMAND"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_livekit_agents_and_each_plugin_have_a_level_of_their_own(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture, start_method: str
) -> None:
    caplog.set_level(logging.DEBUG)
    app = str(make_agent(agent()))
    async with ProcessPool(app, num_idle_processes=1, start_method=start_method) as pool:
        report = await (await pool.launch(order())).wait()
    assert report.outcome == "succeeded", report.error
    assert lines(caplog, "setup") == told("setup", "info")
    assert lines(caplog, "job") == told("job", "info")
    (metrics,) = (record for record in caplog.records if record.getMessage() == "STT metrics")
    assert (vars(metrics)["app_logger"], vars(metrics)["fields"]["audio_duration"]) == ("livekit.agents", 4.5)


@pytest.mark.parametrize(
    ("options", "environment", "level"),
    [
        ("log_level='debug'", {}, "debug"),
        ("log_level='WARN'", {}, "warning"),
        ("log_level='debug'", {"LIVEKIT_LOG_LEVEL": "warn"}, "warning"),
        ("log_level='warn'", {"GREENROOM_LOG_LEVEL": "debug", "LIVEKIT_LOG_LEVEL": "error"}, "debug"),
        ("log_level=PER_COMMAND", {}, "warning"),
        ("log_level=PER_COMMAND", {"GREENROOM_COMMAND": "dev"}, "debug"),
    ],
)
async def test_the_level_is_the_operators_then_the_environments_then_the_apps(
    make_agent: MakeAgent,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    environment: dict[str, str],
    level: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    per_command = "__import__('livekit.agents.worker').agents.worker.ServerEnvOption('DEBUG', 'WARN')"
    app = str(make_agent(agent(options.replace("PER_COMMAND", per_command))))
    async with ProcessPool(app, num_idle_processes=1) as pool:
        report = await (await pool.launch(order())).wait()
    assert report.outcome == "succeeded", report.error
    assert lines(caplog, "job") == told("job", level)


async def test_a_level_that_livekit_does_not_know_is_told(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_LOG_LEVEL", "loud")
    with pytest.raises(Exception, match=r"LIVEKIT_LOG_LEVEL is 'loud'; it must be one of TRACE, DEBUG"):
        async with ProcessPool(str(make_agent(agent())), num_idle_processes=1):
            pass


@pytest.mark.parametrize(
    ("options", "arguments", "level"),
    [
        ("log_level='debug'", (), "debug"),
        ("", ("--log-level", "debug"), "debug"),
        ("log_level='debug'", ("--log-level", "warning"), "warning"),
    ],
)
async def test_the_worker_shows_what_its_jobs_log(
    make_agent: MakeAgent, options: str, arguments: tuple[str, ...], level: str
) -> None:
    app = str(make_agent(agent(options)))
    async with RunningWorker(app, "--num-idle-processes", "1", *arguments) as worker:
        await worker.logs(r"setup: mine 30")
        shown = {line for line in worker.lines if "setup: " in line}
        assert {line[line.index("setup: ") :] for line in shown} == told("setup", level)


def lines(caplog: pytest.LogCaptureFixture, where: str) -> set[str]:
    return {text for record in caplog.records if (text := record.getMessage()).startswith(f"{where}: ")}

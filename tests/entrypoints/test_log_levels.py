"""The loggers of LiveKit and of its plugins are heard from the levels that LiveKit's own command line sets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit_orders import notes_of, order
from server.running_worker import RunningWorker
from support import DEADLINE

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


async def test_livekit_agents_and_each_plugin_have_a_level_of_their_own(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    await check_levels(make_agent(agent()), caplog, "zygote")


async def check_levels(app: Path, caplog: pytest.LogCaptureFixture, start_method: str) -> None:
    caplog.set_level(logging.DEBUG)
    options = {"num_idle_processes": 1, "start_method": start_method, "prewarm_timeout": DEADLINE}
    async with ProcessPool(str(app), **options) as pool:
        report = await (await pool.launch(order(), timeout=DEADLINE)).wait()
    assert report.outcome == "succeeded", report.error
    assert lines(caplog, "setup") == told("setup", "info")
    assert lines(caplog, "job") == told("job", "info")
    (metrics,) = (record for record in caplog.records if record.getMessage() == "STT metrics")
    assert (vars(metrics)["app_logger"], vars(metrics)["fields"]["audio_duration"]) == ("livekit.agents", 4.5)


PER_COMMAND = "ServerEnvOption('DEBUG', 'WARN')"
ORDER = [
    ("'debug'", {}, "debug"),
    ("'WARN'", {}, "warning"),
    ("'debug'", {"LIVEKIT_LOG_LEVEL": "warn"}, "warning"),
    ("'warn'", {"GREENROOM_LOG_LEVEL": "debug", "LIVEKIT_LOG_LEVEL": "error"}, "debug"),
    (PER_COMMAND, {}, "warning"),
    (PER_COMMAND, {"GREENROOM_COMMAND": "dev"}, "debug"),
]
ASKED = """
from greenroom.integrations.livekit.agent.blueprint import Blueprint
from greenroom.integrations.livekit.agent.log_levels import Level
from greenroom.integrations.livekit.agent.manifest import describe
from livekit.agents.worker import ServerEnvOption

def level_of(set_by_app, environment):
    asked = AgentServer(log_level=set_by_app)
    asked.rtc_session(print)
    return Level(describe(Blueprint.of(asked), asked)["options"].get("log_level"), environment).number

note(*[level_of(set_by_app, environment) for set_by_app, environment in [CASES]])
"""


async def test_the_level_is_the_operators_then_the_environments_then_the_apps(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each case is asked for in the app, and one is seen in what a job logs."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("LIVEKIT_LOG_LEVEL", "error")
    monkeypatch.setenv("GREENROOM_LOG_LEVEL", "debug")
    cases = ", ".join(f"({set_by_app}, {environment})" for set_by_app, environment, _ in ORDER)
    app = make_agent(ASKED.replace("CASES", cases) + agent("log_level='warn'"))
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        report = await (await pool.launch(order())).wait()
    assert report.outcome == "succeeded", report.error
    assert lines(caplog, "job") == told("job", "debug")
    assert notes_of(app) == [" ".join(str(LEVELS[level]) for *_, level in ORDER)]


async def test_a_level_that_livekit_does_not_know_is_told(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_LOG_LEVEL", "loud")
    with pytest.raises(Exception, match=r"LIVEKIT_LOG_LEVEL is 'loud'; it must be one of TRACE, DEBUG"):
        async with ProcessPool(str(make_agent(agent())), num_idle_processes=1):
            pass


@pytest.mark.parametrize(("arguments", "level"), [((), "debug"), (("--log-level", "warning"), "warning")])
async def test_the_worker_shows_what_its_jobs_log(
    make_agent: MakeAgent, arguments: tuple[str, ...], level: str
) -> None:
    await check_what_a_worker_shows(make_agent(agent("log_level='debug'")), arguments, level)


async def check_what_a_worker_shows(app: Path, arguments: tuple[str, ...], level: str) -> None:
    async with RunningWorker(str(app), "--num-idle-processes", "1", *arguments) as worker:
        await worker.logs(r"setup: mine 30")
        shown = {line for line in worker.lines if "setup: " in line}
        assert {line[line.index("setup: ") :] for line in shown} == told("setup", level)


def lines(caplog: pytest.LogCaptureFixture, where: str) -> set[str]:
    return {text for record in caplog.records if (text := record.getMessage()).startswith(f"{where}: ")}

"""What a LiveKit app sets on its server holds, where the operator has set nothing; what has no effect is named."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from commands import GREENROOM
from livekit_orders import order
from server.running_worker import RunningWorker
from support import DEADLINE, eventually

from greenroom import AppLoadError, PoolOptions, ProcessPool

MakeAgent = Callable[..., Path]

SERVER = {"ws_url": "ws://127.0.0.1:9", "api_key": "key", "api_secret": "a secret of thirty-two characters"}
ALL = {
    "initialize_process_timeout": 77,
    "shutdown_process_timeout": 33.5,
    "drain_timeout": 1800,
    "job_memory_warn_mb": 350,
    "job_memory_limit_mb": 700,
    "num_idle_processes": 1,
}
AGENT = """
from livekit.agents.worker import ServerEnvOption
server = AgentServer(OPTIONS)

@server.rtc_session()
async def entrypoint(ctx: JobContext):
    await ctx.connect()
"""
PLAIN = """
import greenroom
app = greenroom.App()

@app.entrypoint
async def entrypoint(ctx): ...
"""
OLDER = """
async def entrypoint(ctx: JobContext): ...

options = WorkerOptions(entrypoint_fnc=entrypoint, OPTIONS)
"""


def agent(source: str = AGENT, **options: Any) -> str:
    return source.replace("OPTIONS", ", ".join(f"{name}={value!r}" for name, value in (SERVER | options).items()))


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GREENROOM_COMMAND", "LIVEKIT_LOG_LEVEL", "GREENROOM_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def picked(options: PoolOptions) -> dict[str, Any]:
    names = ("prewarm_timeout", "shutdown_timeout", "memory_warn_mb", "memory_limit_mb", "num_idle_processes")
    return {name: getattr(options, name) for name in names}


@pytest.mark.parametrize(
    ("start_method", "source"), [pytest.param("spawn", AGENT, marks=pytest.mark.more), ("zygote", OLDER)]
)
async def test_a_pool_goes_by_what_the_app_sets(make_agent: MakeAgent, start_method: str, source: str) -> None:
    await check_that_a_pool_goes_by_it(make_agent, start_method, source)


async def check_that_a_pool_goes_by_it(make_agent: MakeAgent, start_method: str, source: str) -> None:
    app = str(make_agent(agent(source, **ALL)))
    # One at a time: a spawned process has to load the app before it can tell what its time is, on a busy machine.
    operators = {"prewarm_timeout": DEADLINE} if start_method == "spawn" else {}
    async with ProcessPool(app, start_method=start_method, max_concurrent_prewarms=1, **operators) as pool:
        assert picked(pool.options) == {
            "prewarm_timeout": operators.get("prewarm_timeout", 77),
            "shutdown_timeout": 33.5,
            "memory_warn_mb": 350,
            "memory_limit_mb": 700,
            "num_idle_processes": 1,
        }
        assert pool.app_facts.own_settings["drain_timeout"].value == 1800


@pytest.mark.more
async def test_what_the_operator_has_set_holds(make_agent: MakeAgent) -> None:
    app = str(make_agent(agent(**ALL)))
    async with ProcessPool(app, prewarm_timeout=60, num_idle_processes=2, memory_limit_mb=None) as pool:
        assert picked(pool.options) == {
            "prewarm_timeout": 60,
            "shutdown_timeout": 33.5,
            "memory_warn_mb": 350,
            "memory_limit_mb": None,
            "num_idle_processes": 2,
        }


@pytest.mark.more
async def test_a_setup_has_the_time_that_the_app_gives_it(make_agent: MakeAgent) -> None:
    await check_time_of_setup(make_agent, "zygote")


async def check_time_of_setup(make_agent: MakeAgent, start_method: str) -> None:
    hanging = """
def setup(process: JobProcess):
    import time
    time.sleep(1000)

server.setup_fnc = setup
"""
    app = str(make_agent(agent(initialize_process_timeout=0.5) + hanging))
    operators = {} if start_method == "zygote" else {"start_method": "spawn"}
    async with ProcessPool(app, num_idle_processes=1, **operators) as pool:
        # The first ones of a busy machine may not have come to load the app, when they are spawned.
        await eventually(lambda: any("(0.5 s)" in report.detail for report in pool.recent_reports), "the app's time")
        assert {report.reason for report in pool.recent_reports} == {"prewarm_timeout"}


@pytest.mark.more
async def test_a_job_has_the_time_to_end_that_the_app_gives_it(make_agent: MakeAgent) -> None:
    await check_time_to_end(make_agent, "zygote")


async def check_time_to_end(make_agent: MakeAgent, start_method: str) -> None:
    hanging = """
@server.rtc_session()
async def entrypoint(ctx: JobContext):
    async def hang(reason):
        await asyncio.sleep(1000)
    ctx.add_shutdown_callback(hang)
    await ctx.connect()
    note("connected")
    ctx.shutdown("done")
"""
    source = agent(AGENT.partition("@server")[0], shutdown_process_timeout=0.5) + hanging
    async with ProcessPool(
        str(make_agent(source)), num_idle_processes=1, start_method=start_method, prewarm_timeout=DEADLINE
    ) as pool:
        report = await (await pool.launch(order(), timeout=DEADLINE)).wait()
    assert report.reason in ("completed", "shutdown_timeout"), report
    assert "0.5" in f"{report.detail} {report.error}"


@pytest.mark.more
async def test_a_value_that_cannot_be_is_told_in_the_apps_words(make_agent: MakeAgent) -> None:
    app = str(make_agent(agent(num_idle_processes=-1)))
    with pytest.raises(AppLoadError, match=r"AgentServer\(num_idle_processes=-1\): num_idle_processes is -1"):
        await ProcessPool(app).start()


@pytest.mark.more
async def test_livekits_defaults_change_nothing_and_a_reload_brings_what_the_new_code_sets(
    make_agent: MakeAgent,
) -> None:
    path = make_agent(agent())
    async with ProcessPool(str(path)) as pool:
        assert pool.options == PoolOptions()
        assert pool.app_facts.own_settings["drain_timeout"].value == 3600  # agents are written for that one
        pool.resize(2)
        set_now = "job_memory_limit_mb=600, job_memory_warn_mb=float('inf'), drain_timeout=7, num_idle_processes=3, "
        path.write_text(path.read_text().replace("AgentServer(ws_url", f"AgentServer({set_now}ws_url"))
        await pool.reload()
        assert (pool.options.memory_warn_mb, pool.options.memory_limit_mb) == (None, 600)  # infinite: no limit
        assert pool.options.num_idle_processes == 2  # a resize outlasts a reload
        assert pool.app_facts.own_settings["drain_timeout"].value == 7


# --- the worker ----------------------------------------------------------------------------------


@pytest.mark.more
async def test_a_worker_says_what_it_has_from_the_app_and_what_not(make_agent: MakeAgent) -> None:
    options = {**ALL, "load_threshold": 0.9, "max_retry": 3, "multiprocessing_context": "spawn", "host": "127.0.0.1"}
    source = agent(**options)
    async with RunningWorker(str(make_agent(source)), "--shutdown-timeout", "20") as worker:
        await worker.logs(r"from the app: AgentServer\(initialize_process_timeout=77\)")
        await worker.logs(r"from the app: AgentServer\(drain_timeout=1800\)")
        await worker.logs(
            r"not used: AgentServer\(shutdown_process_timeout=33.5\); shutdown_timeout is 20 by --shutdown-timeout"
        )
        await worker.logs(r"WARNING .*AgentServer\(load_threshold=\.\.\.\) has no effect.*set max_jobs")
        await worker.logs(r"AgentServer\(max_retry=\.\.\.\) has no effect")
        await worker.logs(r"AgentServer\(multiprocessing_context=\.\.\.\) has no effect: set start_method to spawn")
        await worker.logs(r"AgentServer\(host=\.\.\.\) has no effect without a port")
        await worker.logs("serving .* with 1 idle processes")
        worker.signal(signal.SIGTERM)
        await worker.logs("draining: 0 jobs may go on for 1800 s")
        assert await worker.ends() == 0


@pytest.mark.more
async def test_a_drain_in_dev_takes_as_long_as_greenrooms(make_agent: MakeAgent) -> None:
    async with RunningWorker(str(make_agent(agent(num_idle_processes=1))), command="dev") as worker:
        await worker.logs("serving")
        worker.signal(signal.SIGTERM)
        await worker.logs("draining: 0 jobs may go on for 5 s")
        await worker.ends()


@pytest.mark.more
async def test_the_apps_port_answers_probes_and_nothing_else_and_is_kept_in_a_reload(make_agent: MakeAgent) -> None:
    """The API can start processes: it stays where the operator has it, behind a token or on loopback."""
    path = make_agent(agent(num_idle_processes=1, port=0, drain_timeout=40))
    async with RunningWorker(str(path)) as worker:
        url = (await worker.logs(r"probes are answered on (http://\[::\]:\d+)"))[1].replace("[::]", "127.0.0.1")
        await worker.logs("serving")
        headers = {"Host": "10.1.2.3:8081"}  # as a kubelet asks
        async with aiohttp.ClientSession(headers=headers) as session:
            for route, text in (("/", "OK"), ("/livez", '{"alive":true}'), ("/readyz", '{"ready":true}')):
                async with session.get(url + route) as answer:
                    assert (answer.status, await answer.text()) == (200, text)
            for route in ("/v1/pool", "/metrics", "/openapi.json", "/pressure"):
                async with session.get(url + route) as answer:
                    assert answer.status == 404
        path.write_text(path.read_text().replace("port=0, drain_timeout=40", "port=1, drain_timeout=50"))
        worker.signal(signal.SIGHUP)
        await worker.logs("the reload has changed health_host or health_port. Restart the worker")
        worker.signal(signal.SIGTERM)
        await worker.logs("draining: 0 jobs may go on for 50 s")
        assert await worker.ends() == 0


async def test_a_port_that_is_taken_is_told_and_ends_the_worker(make_agent: MakeAgent) -> None:
    path = make_agent(PLAIN, prelude="")
    async with RunningWorker(str(path), "--health-port", "0", "--health-host", "127.0.0.1") as first:
        port = (await first.logs(r"probes are answered on http://127\.0\.0\.1:(\d+)"))[1]
        async with RunningWorker(str(path), "--health-port", port) as second:
            first.has_nothing_to_do_with(second.pid)
            await second.logs(rf"cannot listen on all addresses, port {port} \(health_port\)")
            assert await second.exit_code() == 4
        await first.logs("serving")
        first.signal(signal.SIGTERM)
        assert await first.ends() == 0


async def test_a_port_that_the_api_has_on_another_address_is_told_with_a_remedy(make_agent: MakeAgent) -> None:
    path = make_agent(PLAIN, prelude="")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with RunningWorker(str(path), "--port", str(port), "--health-port", str(port)) as worker:
        await worker.logs(
            rf"ERROR .*all addresses, port {port} \(health_port\).*The API has this port on 127\.0\.0\.1; set"
        )
        assert await worker.exit_code() == 4


@pytest.mark.more
async def test_a_port_is_opened_when_an_app_is_heard_late(make_agent: MakeAgent) -> None:
    path = make_agent(agent(num_idle_processes=0, port=0, host="127.0.0.1"))
    async with RunningWorker(
        str(path), "--start-method", "spawn", "--num-idle-processes", "0", "--prewarm-timeout", "60"
    ) as worker:
        await worker.logs("serving")
        assert not any("probes are answered" in line for line in worker.lines)
        await worker.post(timeout=DEADLINE)  # a process is warmed for it, and tells of the app
        url = (await worker.logs(r"probes are answered on (http://127\.0\.0\.1:\d+)"))[1]
        async with aiohttp.ClientSession() as session, session.get(f"{url}/livez") as answer:
            assert answer.status == 200
        assert not any("the reload has changed" in line for line in worker.lines)
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0


# --- greenroom config ----------------------------------------------------------------------------


def config(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return greenroom("config", *arguments, cwd=cwd)


def greenroom(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
    return subprocess.run(
        [GREENROOM, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=DEADLINE * 4,
    )


def test_config_shows_the_app_among_the_origins(make_agent: MakeAgent, tmp_path: Path) -> None:
    path = make_agent(agent(**ALL, load_threshold=0.5, log_level="TRACE", port=8099))
    (tmp_path / "greenroom.toml").write_text("[pool]\nmemory_limit_mb = 900\n")
    done = config(str(path), "--json", "--max-jobs", "3", cwd=tmp_path)
    told = json.loads(done.stdout)["settings"]
    shown = {name: (one["value"], one["origin"]["kind"], one["origin"]["name"]) for name, one in told.items()}
    assert shown["prewarm_timeout"] == (77, "app", "AgentServer(initialize_process_timeout=77)")
    assert shown["drain_timeout"] == (1800, "app", "AgentServer(drain_timeout=1800)")
    assert shown["health_port"] == (8099, "app", "AgentServer(port=8099)")
    assert shown["memory_limit_mb"] == (900, "file", "greenroom.toml")
    assert shown["max_jobs"] == (3, "flag", "--max-jobs")
    assert shown["log_level"] == ("debug", "app", "AgentServer(log_level='TRACE'), for the app's log lines")
    assert "AgentServer(load_threshold=...) has no effect" in done.stderr


@pytest.mark.more
def test_doctor_judges_the_grace_period_by_what_the_app_sets(make_agent: MakeAgent, tmp_path: Path) -> None:
    unit = tmp_path / "agent.service"
    unit.write_text("[Service]\nTimeoutStopSec=90\n")
    path = make_agent(agent(drain_timeout=1000, num_idle_processes=1))
    done = greenroom("doctor", str(path), "--processes", "1", "--deployment", str(unit), cwd=tmp_path)
    assert "1055 s" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_config_of_an_app_that_does_not_load_says_so(make_agent: MakeAgent, start_method: str, tmp_path: Path) -> None:
    path = make_agent("import no_such_module", prelude="")
    done = config(str(path), "--start-method", start_method, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no_such_module" in done.stderr


@pytest.mark.more
def test_config_for_dev_runs_the_script_for_dev_and_takes_what_it_has_for_that(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    check_config(make_agent, tmp_path, "dev", idle="4", drain="70")


def check_config(make_agent: MakeAgent, tmp_path: Path, command: str, *, idle: str, drain: str) -> None:
    block = """
from livekit.agents.worker import ServerEnvOption

async def entrypoint(ctx: JobContext): ...

if __name__ == "__main__":
    server = AgentServer(num_idle_processes=ServerEnvOption(4, 9), drain_timeout=70 if "dev" in sys.argv else 80)
    server.rtc_session(entrypoint)
    cli.run_app(server)
"""
    path = make_agent(block)
    done = config(str(path), "--for", command, cwd=tmp_path)
    shown = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert shown["pool.num_idle_processes"] == [idle, f"AgentServer(num_idle_processes={idle})"], done.stderr
    assert shown["server.drain_timeout"][0] == drain

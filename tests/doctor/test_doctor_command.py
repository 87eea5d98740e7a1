"""``greenroom doctor`` with real apps."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import GREENROOM
from doctor_commands import TAKES_ARGUMENTS, tell
from support import wait_for_exit, wait_for_file

from greenroom.system import proc

MakeApp = Callable[[str], str]

ENTRYPOINT = """
@app.entrypoint
async def entrypoint(ctx): ...
"""

FINE = """
@app.prewarm
async def prewarm(proc):
    proc.userdata["own"] = b"x" * 5_000_000
"""

FAILS_TO_WARM = """
@app.prewarm
def prewarm(proc):
    raise ConnectionError("no database")
"""

STARTS_A_THREAD = """
@app.preload
def preload():
    threading.Thread(target=threading.Event().wait, name="flusher", daemon=True).start()
"""

LEAVES_THINGS_OPEN = """
import socket, subprocess
kept = []

@app.preload
def preload():
    kept.append(socket.create_server(("127.0.0.1", 0)))
    command = [sys.executable, "-c", "import signal; signal.pause()", "TOKEN"]
    kept.append(subprocess.Popen(command, start_new_session=True))
"""


def _levels(told_findings: list[dict[str, str]]) -> list[str]:
    return [finding["level"] for finding in told_findings]


async def test_an_app_that_is_fine(make_app: MakeApp) -> None:
    told = await tell("doctor", make_app(FINE + ENTRYPOINT), "--json", "--processes", "3")
    assert (told.code, told.err) == (0, "")
    assert not [one for one in told.json["findings"] if one["level"] == "problem"]
    for topic in ("load", "threads", "sockets", "prewarm", "memory", "capacity", "limits", "kernel", "grace"):
        assert told.findings(topic), topic
    warm = told.json["warm"]
    assert len(warm["processes"]) == len(warm["idle_seconds"]) == len(warm["prewarm_seconds"]) == 3
    for process in warm["processes"]:
        assert process["private_mb"] > 4  # the 5 MB of prewarm
        assert process["shared_mb"] > process["pss_mb"] - process["private_mb"] > 0
        assert process["threads"] >= 1
    assert all(0 < prewarm < idle for prewarm, idle in zip(warm["prewarm_seconds"], warm["idle_seconds"], strict=True))
    assert warm["fds_per_process"] >= 5
    assert {bound["limit"] for bound in told.json["bounds"]} >= {"memory", "tasks"}
    assert all(bound["sessions"] > 0 for bound in told.json["bounds"])


async def test_arguments_reach_the_app_as_under_start(make_app: MakeApp) -> None:
    app = make_app(TAKES_ARGUMENTS)
    told = await tell("doctor", app, "--json", "--processes", "1", "--session", "null", "--", "--lang", "fr")
    assert (told.code, told.err) == (0, "")
    assert len(told.json["warm"]["processes"]) == 1
    assert told.json["session"]["failure"] == ""
    without = await tell("doctor", app)
    assert without.code == 3
    assert "AssertionError" in without.err


async def test_for_people_it_is_a_line_for_each_finding_and_one_for_what_to_do(make_app: MakeApp) -> None:
    told = await tell("doctor", make_app(ENTRYPOINT), "--processes", "1")
    assert told.code == 0
    lines = told.out.splitlines()
    assert any(line.startswith("ok      load      ") for line in lines)
    assert any(line.startswith("note    grace     ") for line in lines)
    assert any("→ set job_timeout" in line for line in lines)
    assert " ok" in lines[-1]


async def test_a_thread_that_preload_has_started_is_named(make_app: MakeApp) -> None:
    told = await tell("doctor", make_app(STARTS_A_THREAD + ENTRYPOINT), "--json")
    assert told.code == 1
    (finding,) = told.findings("threads")
    assert finding["level"] == "problem"
    assert "flusher" in finding["found"]
    assert "allow_threads" in finding["todo"]
    assert told.json["warm"] is None  # it cannot be forked, so nothing was


async def test_the_remedy_of_a_library_is_named(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    told = await tell("doctor", make_app(f"import numpy\n{ENTRYPOINT}"), "--json")
    (finding,) = told.findings("threads")
    assert finding["todo"].endswith("set OPENBLAS_NUM_THREADS=1 (Greenroom's default) for the worker")


async def test_an_allowed_thread_is_noted(make_app: MakeApp) -> None:
    source = "app.allow_threads = frozenset({'flusher'})\n" + STARTS_A_THREAD
    told = await tell("doctor", make_app(source + ENTRYPOINT), "--json", "--processes", "1")
    assert told.code == 0
    assert _levels(told.findings("threads")) == ["note"]
    assert told.json["warm"]["processes"]


async def test_what_preload_has_left_open_is_named_and_ended(make_app: MakeApp) -> None:
    token = f"left-by-{os.getpid()}-{time.monotonic_ns()}"
    source = LEAVES_THINGS_OPEN.replace("TOKEN", token) + ENTRYPOINT
    told = await tell("doctor", make_app(source), "--json", "--processes", "1")
    assert told.code == 0
    socket, process = told.findings("sockets")
    assert (socket["level"], process["level"]) == ("warning", "note")
    assert "socket:" in socket["found"]
    assert "prewarm" in socket["todo"]
    assert not [pid for pid in proc.pids() if token in _command_line(pid)]


async def test_a_slow_import_is_named(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "molasses.py").write_text("import time\ntime.sleep(0.5)\n")
    told = await tell("doctor", make_app("import molasses" + ENTRYPOINT), "--json", "--processes", "1")
    (finding,) = told.findings("load")
    assert "molasses" in finding["found"]
    first = told.json["load"]["packages"][0]
    assert first["package"] == "molasses"
    assert first["self_seconds"] >= 0.5
    assert told.json["load"]["import_seconds"] >= 0.5


async def test_an_app_that_does_not_load(make_app: MakeApp) -> None:
    app = make_app("import no_such_module")
    told = await tell("doctor", app, "--json")
    assert told.code == 3
    assert "No module named 'no_such_module'" in told.err
    assert "import no_such_module" in told.json["error"]


async def test_an_app_that_ends_the_interpreter(make_app: MakeApp) -> None:
    told = await tell("doctor", make_app("print('about to', file=sys.stderr, flush=True)\nos._exit(7)"))
    assert told.code == 3
    assert "about to" in told.err


async def test_an_app_that_hangs_is_shown_where_and_nothing_of_it_stays(make_app: MakeApp) -> None:
    token = f"left-by-{os.getpid()}-{time.monotonic_ns()}"
    source = f"""
    import subprocess
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", "{token}"], start_new_session=True)
    time.sleep(1000)
    """
    told = await tell("doctor", make_app(source), "--preload-timeout", "2")
    assert told.code == 3
    assert "preload_timeout (2 s)" in told.err
    assert "app_0.py" in told.err
    assert not [pid for pid in proc.pids() if token in _command_line(pid)]


async def test_killed_while_it_loads_an_app_it_leaves_nothing(make_app: MakeApp, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    source = f"""
    from pathlib import Path
    Path({str(told)!r}).write_text(str(os.getpid()))
    time.sleep(1000)
    """
    process = await asyncio.create_subprocess_exec(GREENROOM, "doctor", make_app(source))
    pidfd = os.pidfd_open(int(await wait_for_file(told)))
    process.kill()
    await process.wait()
    await wait_for_exit(pidfd)


async def test_a_prewarm_that_fails(make_app: MakeApp) -> None:
    told = await tell("doctor", make_app(FAILS_TO_WARM + ENTRYPOINT), "--json")
    assert told.code == 1
    (finding,) = told.findings("prewarm")
    assert "no database" in finding["found"]
    assert "Traceback" in finding["todo"]


async def test_spawned_processes_are_measured_too(make_app: MakeApp) -> None:
    options = ("--start-method", "spawn", "--processes", "1")
    told = await tell("doctor", make_app(STARTS_A_THREAD + ENTRYPOINT), "--json", *options)
    assert told.code == 0
    assert _levels(told.findings("threads")) == ["note"]
    assert len(told.json["warm"]["processes"]) == 1


async def test_a_grace_period_that_is_too_short_is_a_problem(make_app: MakeApp, tmp_path: Path) -> None:
    unit = tmp_path / "agent.service"
    unit.write_text("[Service]\nTimeoutStopSec=60s\n")
    command = ("doctor", make_app(ENTRYPOINT), "--processes", "1", "--deployment", str(unit))
    told = await tell(*command, "--json")
    assert told.code == 1
    assert _levels(told.findings("grace"))[0] == "problem"
    assert (await tell(*command, "--drain-timeout", "5", "--json")).code == 0
    environment = {**os.environ, "GREENROOM_DRAIN_TIMEOUT": "5"}
    assert (await tell(*command, "--json", env=environment)).code == 0


async def test_what_is_not_understood_exits_with_2(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(ENTRYPOINT)
    for arguments, says in (
        (["--drain-timeout", "-1"], "above 0"),
        (["--processes", "0"], "--processes"),
        (["--deployment", str(tmp_path / "none.yaml")], "none.yaml"),
    ):
        told = await tell("doctor", app, *arguments)
        assert (told.code, told.out) == (2, "")
        assert says in told.err


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


USES_THE_RUNTIME = """
from livekit import rtc
source = rtc.AudioSource(48000, 1)
"""


async def test_what_cannot_be_imported_before_a_fork_is_told_as_the_zygote_would(make_app: MakeApp) -> None:
    pytest.importorskip("livekit.rtc")
    app = make_app(USES_THE_RUNTIME + ENTRYPOINT)
    told = await tell("doctor", app, "--json", "--processes", "1")
    assert told.code != 0
    assert "native runtime while the app was imported" in told.out + told.err
    told = await tell("doctor", app, "--json", "--processes", "1", "--start-method", "spawn")
    assert "native runtime while the app was imported" not in told.out + told.err


GOES_THROUGH_A_TABLE = """
table = {}

@app.preload
def preload():
    table.update((str(number), f"the text of {number}") for number in range(400_000))

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "read":
        kept = list(table.values())
    await asyncio.sleep(0.2)  # to be looked at
"""


@pytest.mark.parametrize(("metadata", "level"), [("read", "warning"), ("rest", "ok")])
async def test_a_session_that_copies_what_it_reads_is_told(make_app: MakeApp, metadata: str, level: str) -> None:
    app = make_app(GOES_THROUGH_A_TABLE)
    told = await tell("doctor", app, "--json", "--processes", "1", "--session", f'"{metadata}"')
    assert told.code == 0, told.err
    (finding,) = told.findings("session")
    assert finding["level"] == level, finding
    assert ("numpy" in finding["todo"]) == (level == "warning")
    session = told.json["session"]
    assert session["after"]["private_mb"] >= session["before"]["private_mb"] > 0

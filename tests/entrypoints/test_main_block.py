"""The main block of a script, run as a program: once, in a process of its own, whatever becomes of the zygotes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit_orders import notes_of, order
from server.running_worker import RunningWorker, orphans
from support import DEADLINE, eventually, is_gone, zygote_pid

from greenroom import AppLoadError, PoolClosed, ProcessPool
from greenroom.pool import Invocation
from greenroom.pool.events import ZygoteStarted

MakeAgent = Callable[..., Path]

ENTRYPOINT = """
async def entrypoint(ctx: JobContext):
    note("job", *sys.argv[1:], os.environ.get("SET_BY_BLOCK"), os.environ.get("UNSET_BY_BLOCK"))
    ctx.shutdown()
"""
BLOCK = """
if __name__ == "__main__":
    note("block", os.getpid())
"""
RUN_APP = "    cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint, agent_name='greeter', num_idle_processes=7))\n"


async def manifest_of(app: object) -> dict[str, object]:
    async with ProcessPool(str(app), num_idle_processes=0) as pool:
        return dict(pool.manifest["livekit"])


async def run_job(pool: ProcessPool) -> None:
    report = await (await pool.launch(order(), timeout=DEADLINE)).wait()
    assert report.outcome == "succeeded", report


def renamed(app: Path, name: str) -> Path:
    """Give a script another name, in a folder of its own."""
    folder = app.parent / "of_any_name"
    folder.mkdir()
    return app.rename(folder / name)


def blocks(app: Path) -> list[int]:
    return [int(line.split()[1]) for line in notes_of(app) if line.startswith("block")]


# --- how it may look ------------------------------------------------------------------------------


PARTIAL = (
    """
import functools

class Agents:
    def __init__(self, *kinds):
        self.kinds = kinds
    async def entry(self, ctx, *, kind):
        assert (self.kinds, kind) == (("a", b"b", {1: 1.5}), "french")
        await entrypoint(ctx)
"""
    + BLOCK
    + """
    entry = functools.partial(Agents("a", b"b", {1: 1.5}).entry, kind="french")
    cli.run_app(WorkerOptions(entrypoint_fnc=entry, agent_name="greeter", num_idle_processes=7, load_fnc=lambda: 0.5))
"""
)


async def test_it_is_run_once_and_what_it_serves_is_served(make_agent: MakeAgent) -> None:
    """In one spelling; ``test_variants.py`` has more, and the tests below use others."""
    await check_that_it_is_run_once(make_agent(ENTRYPOINT + PARTIAL))


async def check_that_it_is_run_once(app: Path) -> None:
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        told = pool.manifest["livekit"]
        assert (told["agent_name"], told["options"]["num_idle_processes"]) == ("greeter", 7)
        await run_job(pool)
        (pid,) = blocks(app)
        os.kill(zygote_pid(pool), signal.SIGKILL)
        await eventually(lambda: pool.stats().zygote_restarts == 1, "another zygote")
        await run_job(pool)
        assert blocks(app) == [pid]
    assert is_gone(pid)
    assert [line.split()[:2] for line in notes_of(app) if line.startswith("job")] == 2 * [["job", "start"]]


@pytest.mark.more
async def test_what_it_has_set_holds_in_jobs(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UNSET_BY_BLOCK", "yes")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "neighbour.py").write_text("there = True\n")
    source = """
    os.environ["SET_BY_BLOCK"] = sys.argv.pop()
    del os.environ["UNSET_BY_BLOCK"]
    os.chdir(Path(__file__).parent / "elsewhere")
    sys.path.insert(0, os.getcwd())
    import neighbour
"""
    entrypoint = (
        ENTRYPOINT + "    import __main__, neighbour\n    note(Path.cwd().name, __main__.entrypoint.__module__)\n"
    )
    options = "options = WorkerOptions(entrypoint_fnc=entrypoint)\n"
    serving = "    options.agent_name = 'greeter'\n    cli.run_app(options)\n"
    app = make_agent(entrypoint + options + BLOCK + source + serving)
    invocation = Invocation(("start", "french"))
    monkeypatch.chdir(tmp_path)
    async with ProcessPool(app.name, invocation=invocation, num_idle_processes=1) as pool:
        assert pool.manifest["livekit"]["agent_name"] == "greeter"
        await run_job(pool)
        await pool.reload()
    assert "Restart the worker to run the main block again" not in caplog.text  # it is as it was
    assert notes_of(app)[1:] == ["job start french None", f"elsewhere {app.stem}"]


@pytest.mark.more
async def test_what_it_started_lives_on(make_agent: MakeAgent) -> None:
    """In a script by the name of a module of the standard library."""
    source = """
    import atexit, socket, subprocess, threading
    lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    lock.bind(("127.0.0.1", 0))
    child = subprocess.Popen(["setsid", "sleep", "3600"])
    note("child", child.pid)
    threading.Thread(target=lambda: [note("thread", lock.recv(9))], daemon=True).start()
    note("port", lock.getsockname()[1])
    atexit.register(note, "exit handler")
    try:
        cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint))
    finally:
        note("finally")
"""
    app = renamed(make_agent(ENTRYPOINT + BLOCK + source), "types.py")
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        await run_job(pool)
        port = next(int(line.split()[1]) for line in notes_of(app) if line.startswith("port"))
        child = next(int(line.split()[1]) for line in notes_of(app) if line.startswith("child"))
        subprocess.run([sys.executable, "-c", SEND, str(port)], check=True, timeout=DEADLINE)
        await eventually(lambda: "thread b'hello'" in notes_of(app), "answer of the block's thread")
        assert not is_gone(child)
    assert notes_of(app)[-2:] == ["finally", "exit handler"]
    await eventually(lambda: is_gone(child), "end of what the block had started")


SEND = "import socket, sys; socket.socket(type=socket.SOCK_DGRAM).sendto(b'hello', ('127.0.0.1', int(sys.argv[1])))"


@pytest.mark.more
async def test_a_complaint_that_is_repeated_is_logged_once(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
server = AgentServer()
server.rtc_session(entrypoint)
async def main():
    first = asyncio.create_task(server.run())
    while not Path(__file__).with_suffix(".gate").exists():
        await asyncio.sleep(0.01)
    for _ in range(5):
        try:
            await server.run()
        except Exception:
            pass
    note("tried")
    await first
if __name__ == "__main__":
    asyncio.run(main())
"""
    app = make_agent(ENTRYPOINT + source)
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        app.with_suffix(".gate").touch()
        await eventually(lambda: "tried" in notes_of(app), "more servers")
        await eventually(lambda: "runs another server" in caplog.text, "the complaint")
        await run_job(pool)
    assert caplog.text.count("runs another server") == 1


# --- reloads --------------------------------------------------------------------------------------


@pytest.mark.more
async def test_a_reload_says_that_a_changed_block_is_kept_and_sessions_go_on_when_it_dies(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    """In a script whose name is none of a module."""
    source = "def options():\n    return WorkerOptions(entrypoint_fnc=entrypoint, agent_name='greeter')\n"
    app = renamed(make_agent(ENTRYPOINT + source + BLOCK + "    cli.run_app(options())\n"), "my-agent.v2.py")
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        (pid,) = blocks(app)
        app.write_text(app.read_text().replace("'greeter'", "'another'").replace('"job"', '"changed"'))
        await pool.reload()
        assert "Restart the worker to run the main block again" in caplog.text
        await run_job(pool)
        assert pool.manifest["livekit"]["agent_name"] == "greeter"
        assert notes_of(app)[-1].startswith("changed")
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: "has ended (signal 9)" in caplog.text, "news of its end")
        await run_job(pool)
        await pool.reload()
        await run_job(pool)
    assert blocks(app) == [pid]


@pytest.mark.more
async def test_what_is_made_at_the_top_level_is_as_it_was_reloaded(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    """And an event handler that the block adds is handed over, and a block that does not end is killed."""
    source = """
server = AgentServer()
server.rtc_session(entrypoint, agent_name='greeter')
def tell_registry(*arguments): ...
"""
    block = """
    import time
    server._max_retry = 3
    server.on("worker_registered", tell_registry)
    server.on("worker_registered", lambda: None)
    server.load_fnc = lambda: 0.5
    try:
        cli.run_app(server)
    finally:
        while True:
            time.sleep(3600)
"""
    app = make_agent(ENTRYPOINT + source + BLOCK + block)
    async with ProcessPool(str(app), num_idle_processes=0) as pool:
        assert pool.resident.takes("worker")
        (warning,) = [
            one.getMessage() for one in caplog.records if "is not called at worker_registered" in one.getMessage()
        ]
        assert "<lambda>" in warning
        assert "exists in the process of the script alone" in warning
        complaint = pool.manifest["livekit"]["without_effect"][-1]
        assert complaint.startswith("AgentServer(load_fnc=...) has no effect: '<lambda>'")
        app.write_text(app.read_text().replace("'greeter'", "'another'"))
        await pool.reload()
        told = pool.manifest["livekit"]
        assert (told["agent_name"], told["options"]["max_retry"]) == ("another", 3)
        (pid,) = blocks(app)
    assert is_gone(pid)


@pytest.mark.more
async def test_a_reload_in_development_runs_it_anew_unless_the_pool_is_closed_meanwhile(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    lingers = """
    import atexit, time
    def linger():
        note("ends")
        while not Path(__file__).with_suffix(".gate").exists():
            time.sleep(0.01)
    atexit.register(linger)
"""
    app = make_agent(ENTRYPOINT + BLOCK + RUN_APP)
    source = app.read_text()
    invocation = Invocation(("dev",), is_renewed=True)
    async with ProcessPool(str(app), invocation=invocation, num_idle_processes=0) as pool:
        app.write_text(source.replace("cli.run_app", "cli.run_up"))
        with pytest.raises(AppLoadError, match="run_up"):
            await pool.reload()
        assert "for a reload that failed" in caplog.text
        app.write_text(source.replace("'greeter'", "'another'").replace(RUN_APP[:15], lingers + RUN_APP[:15]))
        await pool.reload()
        assert pool.manifest["livekit"]["agent_name"] == "another"
        *ended, running = blocks(app)
        assert (list(map(is_gone, ended)), is_gone(running)) == ([True, True], False)
        reload = asyncio.create_task(pool.reload())
        await eventually(lambda: "ends" in notes_of(app), "end of the block")
        closing = asyncio.create_task(pool.aclose())
        await eventually(lambda: not pool.is_open, "order to close")
        app.with_suffix(".gate").touch()
        with pytest.raises(PoolClosed):
            await reload
        await closing
    assert blocks(app) == [*ended, running]


# --- a pool that is closed meanwhile --------------------------------------------------------------


async def test_a_pool_that_is_closed_while_the_block_runs_loads_nothing(make_agent: MakeAgent) -> None:
    source = """
server = AgentServer()
server.rtc_session(entrypoint)
async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, told.set)
    note("block", os.getpid())
    await told.wait()
    running = asyncio.create_task(server.run())
    await asyncio.sleep(0)
if __name__ == "__main__":
    asyncio.run(main())
"""
    app = make_agent(ENTRYPOINT + source)
    pool = ProcessPool(str(app), num_idle_processes=0)
    zygotes: list[object] = []
    pool.subscribe(lambda event: zygotes.append(event) if isinstance(event, ZygoteStarted) else None)
    starting = asyncio.create_task(pool.start())
    await eventually(lambda: notes_of(app), "start of the block")
    await pool.aclose()
    with pytest.raises(PoolClosed):
        await starting
    assert zygotes == []


# --- what is wrong is said ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("sys.exit(7)", r"{name} ended \(exit code 7\) before it called cli.run_app"),
        ("print('done')", r"{name} ended \(exit code 0\) before it called"),
        ("os.kill(os.getpid(), 9)", r"{name} ended \(signal 9\) before it called"),
        ("raise ValueError('no key')", r"ValueError: no key\n.*{name}\", line 3, in <module>\n"),
    ],
)
async def test_a_block_that_ends_is_told_by_its_end(make_agent: MakeAgent, line: str, complaint: str) -> None:
    app = make_agent(f"import os, sys\nif __name__ == '__main__':\n    {line}\n", prelude="")
    with pytest.raises(AppLoadError) as caught:
        await manifest_of(app)
    assert re.search(complaint.format(name=re.escape(app.name)), str(caught.value), re.DOTALL), caught.value
    assert "greenroom/" not in str(caught.value)
    assert "__greenroom" not in str(caught.value)


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("    cli.run_app(5)\n", r"agent_0.py, line 15: a int cannot be served"),
        (
            "    async def inner(ctx): ...\n    cli.run_app(WorkerOptions(entrypoint_fnc=inner))\n",
            r"line 16: entrypoint_fnc cannot be found.*'inner' \(.*agent_0.py, line 15\)",
        ),
        (
            "    async def main():\n        await asyncio.gather(server(1).run(), server(2).run())\n"
            "    asyncio.run(main())\n",
            r"line 16 runs another server",
        ),
    ],
)
async def test_what_cannot_be_served_is_named(make_agent: MakeAgent, block: str, complaint: str) -> None:
    functions = """
def server(n):
    server = AgentServer()
    server.rtc_session(entrypoint)
    return server
"""
    app = make_agent(ENTRYPOINT.strip() + functions + "if __name__ == '__main__':\n" + block)
    first = app.read_text().split("if __name__")[0].count("\n") + 2
    shifted = re.sub(r"line (1[56])", lambda found: f"line {int(found[1]) - 15 + first}", complaint)
    with pytest.raises(AppLoadError) as caught:
        await manifest_of(app)
    assert re.search(shifted.replace("agent_0", app.stem), str(caught.value), re.DOTALL), caught.value
    assert "greenroom/" not in str(caught.value)
    assert "__greenroom" not in str(caught.value)


WRONG = """
from greenroom import AppLoadError
def make():
    server = AgentServer()
    @server.rtc_session()
    async def nested(ctx): ...
    return server

if __name__ == "__main__":
    import functools, threading
    from greenroom.integrations.livekit.agent.command_line import with_arguments
    from greenroom.integrations.livekit.agent.handed_server import describe
    options = WorkerOptions(entrypoint_fnc=entrypoint)
    locked = functools.partial(entrypoint, threading.Lock())
    wrong = {
        "another argument": lambda: with_arguments(options, ["start", "--lang"]),
        "another command": lambda: with_arguments(options, ["console"]),
        "a setting": lambda: with_arguments(options, ["dev", "--url", "ws://127.0.0.1:1"]),
        "a flag": lambda: with_arguments(options, ["dev", "--no-reload"]),
        "lambda": lambda: describe(WorkerOptions(entrypoint_fnc=entrypoint, request_fnc=lambda _: None), "here", None),
        "nested": lambda: describe(make(), "here", None),
        "lock": lambda: describe(WorkerOptions(entrypoint_fnc=locked), "here", None),
    }
    for name, attempt in wrong.items():
        try:
            attempt()
        except AppLoadError as error:
            note(f"{name}:", *str(error).split())
    sys.argv.append("--lang")
    cli.run_app(options)
"""
COMPLAINTS = {
    "another argument": r"--lang.*sys.argv = sys.argv\[:2\]",
    "another command": r"begin with start or dev",
    "a setting": "--url of LiveKit's command line has no effect under Greenroom: set LIVEKIT_URL$",
    "a flag": "--no-reload of LiveKit's command line has no effect under Greenroom: leave it out$",
    "lambda": r"here: request_fnc cannot be found.*top level",
    "nested": r"here: (rtc_session|entrypoint_fnc) cannot be found",
    "lock": r"here: entrypoint_fnc cannot be found.*lock",
}


async def test_what_it_cannot_hand_over_is_named_by_kind(make_agent: MakeAgent) -> None:
    """All in one script: each complaint but the last is caught before it ends the process."""
    app = make_agent(ENTRYPOINT + WRONG)
    with pytest.raises(AppLoadError, match=COMPLAINTS["another argument"]):
        await manifest_of(app)
    told = dict(line.split(": ", 1) for line in notes_of(app))
    assert told.keys() == COMPLAINTS.keys()
    for kind, complaint in COMPLAINTS.items():
        assert re.search(complaint, told[kind]), (kind, told[kind])
        assert "__greenroom" not in told[kind]
        assert "greenroom/" not in told[kind]


async def test_a_worker_that_is_run_at_the_top_level_is_named(make_agent: MakeAgent) -> None:
    first, second = "asyncio.run(AgentServer().run())", "cli.run_app(WorkerOptions(entrypoint_fnc=print))"
    app = make_agent(f"""
def main():
    try:
        {first}
    except Exception as error:
        note(error)
    {second}
main()
""")

    def line_of(call: str) -> int:
        return app.read_text().split(call)[0].count("\n") + 1

    complaint = rf"{app.name}, line %d, calls .* whenever it is imported.*__main__"
    with pytest.raises(AppLoadError, match=complaint % line_of(second)):
        await manifest_of(app)
    assert re.search(complaint % line_of(first), notes_of(app)[0])


async def test_a_block_that_hangs_is_shown_with_its_stack(make_agent: MakeAgent) -> None:
    app = make_agent("if __name__ == '__main__':\n    import threading\n    threading.Event().wait()\n", prelude="")
    with pytest.raises(AppLoadError, match=rf"(?s)within preload_timeout.*{app.name}\", line 3"):
        async with ProcessPool(str(app), num_idle_processes=0, preload_timeout=4.0):
            pass


async def test_a_block_that_hands_over_while_its_stack_is_dumped_is_too_late(tmp_path: Path) -> None:
    app = tmp_path / "agent.py"
    app.write_text("""
if __name__ == "__main__":
    import signal, threading
    from greenroom.zygote.script.script_handover import current_handover
    serve = lambda *_: current_handover().hand_over("livekit.agents", lambda: ({}, None))
    signal.signal(signal.SIGRTMIN + 7, serve)  # the dump is asked for by this signal, and never comes
    threading.Event().wait()
""")
    with pytest.raises(AppLoadError, match=r"did not call cli.run_app within preload_timeout"):
        async with ProcessPool(str(app), num_idle_processes=0, preload_timeout=2.0):
            pass


# --- where it may be ------------------------------------------------------------------------------


PACKAGED = """
import sys
from pathlib import Path
from livekit.agents import WorkerOptions, cli
from .parts import entry
if __name__ == "__main__":
    assert sys.argv[1:] == ["start"] and __package__ == "voice"
    cli.run_app(WorkerOptions(entrypoint_fnc=entry, agent_name="packaged"))
"""


@pytest.mark.parametrize("place", ["voice", pytest.param("voice/agent.py", marks=pytest.mark.more)])
async def test_a_module_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    await check_module_of_package(tmp_path, monkeypatch, place)


async def check_module_of_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    package = tmp_path / "voice"
    package.mkdir()
    (package / "__init__.py").write_text("")
    of_parts = "import __main__\nasync def entry(ctx): ...\nassert __main__.__name__ != 'voice'\n"
    (package / "parts.py").write_text(of_parts)
    (package / "agent.py").write_text(PACKAGED)
    (package / "__main__.py").write_text(PACKAGED.replace('if __name__ == "__main__":', "if True:"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert (await manifest_of(place))["agent_name"] == "packaged"


async def test_a_relative_import_outside_of_a_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(PACKAGED)
    with pytest.raises(AppLoadError, match=r"agent.py, line 5, is a relative import, .* no __init__.py"):
        await manifest_of(tmp_path / "agent.py")


@pytest.mark.parametrize("line", ["app = greenroom.App()", "from the_app import app"])
async def test_the_block_of_a_greenroom_app_is_not_run(tmp_path: Path, line: str) -> None:
    (tmp_path / "the_app.py").write_text("import greenroom\napp = greenroom.App()\n")
    path = tmp_path / "agent.py"
    path.write_text(
        f"import greenroom\n{line}\n@app.entrypoint\nasync def entrypoint(ctx): return __name__\n"
        "if __name__ == '__main__':\n    open(__file__ + '.notes', 'w')\n"
    )
    async with ProcessPool(str(path), num_idle_processes=1) as pool:
        assert (await (await pool.launch()).wait()).result == "agent"
    assert not Path(f"{path}.notes").exists()


@pytest.mark.more
async def test_a_server_that_is_named_is_served_without_the_block(make_agent: MakeAgent) -> None:
    app = make_agent("server = AgentServer()\nserver.rtc_session(print, agent_name='greeter')\n" + BLOCK)
    assert (await manifest_of(f"{app}:server"))["agent_name"] == "greeter"
    assert not notes_of(app)


# --- under the worker -----------------------------------------------------------------------------


def test_the_command_is_a_module_too() -> None:
    shown = subprocess.run([sys.executable, "-m", "greenroom", "--help"], check=True, capture_output=True, text=True)
    assert "Usage: greenroom" in shown.stdout


@pytest.mark.more
async def test_a_block_that_closes_its_server_ends_the_worker(make_agent: MakeAgent) -> None:
    source = """
server = AgentServer(ws_url="ws://127.0.0.1:1", api_key="key", api_secret="a secret of thirty-two characters")
server.rtc_session(entrypoint)
async def main():
    running = asyncio.create_task(server.run())
    while not Path(__file__).with_suffix(".close").exists():
        await asyncio.sleep(0.01)
    await server.drain()
    await server.aclose()
    await running
    note("closed", *sys.argv[1:])
if __name__ == "__main__":
    asyncio.run(main())
"""
    app = make_agent(ENTRYPOINT + source)
    async with RunningWorker(str(app), "--", "--lang", "fr") as worker:
        await worker.logs("serving")
        app.with_suffix(".close").touch()
        await worker.logs("the main block closed its server: stopping")
        assert await worker.ends() == 0
    assert notes_of(app) == ["closed start --lang fr"]


@pytest.mark.more
async def test_it_ends_with_the_worker_however_that_ends(make_agent: MakeAgent) -> None:
    credentials = {"LIVEKIT_URL": "ws://127.0.0.1:1", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": 32 * "s"}
    source = """
    import multiprocessing, time
    logging.getLogger('block').warning('heard')
    multiprocessing.Process(target=time.sleep, args=(3600,)).start()
"""
    app = make_agent(ENTRYPOINT + BLOCK + source + RUN_APP)
    async with RunningWorker(str(app), env={**os.environ, **credentials}) as worker:
        await worker.logs(r"WARNING \[script\] heard")
        await worker.logs("serving")
        (pid,) = blocks(app)
        worker.signal(signal.SIGKILL)
        assert await worker.exit_code() == -signal.SIGKILL
        await eventually(lambda: pid not in orphans() and is_gone(pid), "end of the script")

"""Finding LiveKit's object in an app's file, and what is told of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom import AppLoadError
from greenroom.zygote.loader import facts_of, load_app

MakeAgent = Callable[[str], Path]

ENTRYPOINT = """
async def entrypoint(ctx: JobContext): ...
"""


@pytest.mark.parametrize(
    "source",
    [
        "server = AgentServer(num_idle_processes=7)\nserver.rtc_session(entrypoint, agent_name='greeter')",
        "options = WorkerOptions(entrypoint_fnc=entrypoint, agent_name='greeter', num_idle_processes=7)",
    ],
)
def test_an_agent_is_found_wherever_it_is_made(
    make_agent: MakeAgent, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    path = make_agent(ENTRYPOINT + source)
    told = load_app(str(path)).manifest["livekit"]
    assert (told["agent_name"], told["worker_type"]) == ("greeter", "room")
    assert told["options"] == {"num_idle_processes": 7}


def test_the_manifest_tells_what_the_supervisor_needs(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    path = make_agent(
        """
from livekit.agents import WorkerPermissions
from livekit.agents.worker import ServerEnvOption, ServerType

os.environ["LIVEKIT_API_KEY"] = "from a file that the app reads"
server = AgentServer(
    ws_url="ws://rooms.example", load_threshold=float("inf"), drain_timeout=60, job_memory_limit_mb=500,
    num_idle_processes=ServerEnvOption(dev_default=1, prod_default=9),
    permissions=WorkerPermissions(can_publish=False, hidden=True), load_fnc=lambda: 0.5,
    session_end_timeout=90.0, http_proxy="http://user:password@proxy.example:3128",
)

async def on_request(request: JobRequest): await request.accept()
async def on_session_end(ctx: JobContext): ...

@server.rtc_session(type=ServerType.PUBLISHER, on_request=on_request, on_session_end=on_session_end)
async def entrypoint(ctx: JobContext): ...
"""
    )
    told = load_app(f"{path}:server").manifest["livekit"]
    assert told.pop("livekit_agents_version").startswith("1.")
    assert told == {
        "agent_name": "",
        "worker_type": "publisher",
        "permissions": {
            "can_publish": False,
            "can_subscribe": True,
            "can_publish_data": True,
            "can_update_metadata": True,
            "hidden": True,
            "can_publish_sources": [],
        },
        "options": {
            "num_idle_processes": {"dev": 1, "prod": 9},
            "drain_timeout": 60,
            "job_memory_limit_mb": 500,
            "load_threshold": None,
            "session_end_timeout": 90.0,
        },
        "load_threshold": None,
        "without_effect": [],
        "session_end_seconds": 90.0,
        "log_level": None,
        "http_proxy": "http://user:password@proxy.example:3128",
        "ws_url": "ws://rooms.example",
        "api_key": "from a file that the app reads",
    }


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("one = AgentServer()\ntwo = AgentServer()", "several LiveKit servers (one, two)"),
        ("server = AgentServer()", "no entrypoint; mark one with @server.rtc_session"),
        ("server = 5", "has no 'app'; make one"),
        ("if __name__ == '__main__':\n    print('never')", "has no 'app'; make one"),
    ],
)
def test_what_is_wrong_is_said(
    make_agent: MakeAgent, source: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(AppLoadError) as caught:
        load_app(str(make_agent(source)))
    assert complaint in str(caught.value)


def test_livekit_is_not_imported_for_an_app_that_does_not(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "import greenroom\napp = greenroom.App()\n@app.entrypoint\nasync def entrypoint(ctx): ...\n"
    )
    code = "import sys; from greenroom.zygote.loader import load_app; load_app('plain.py'); "
    code += "load_app('plain.py:app'); assert not any(name.startswith('livekit') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


def test_what_an_app_has_for_its_resident_process_is_told(make_agent: MakeAgent) -> None:
    source = """
server = AgentServer(ws_url="ws://rooms.example"OPTIONS)

@server.on("worker_registered")
def tell_registry(worker_id, info): ...

@server.rtc_session()
async def entrypoint(ctx: JobContext): ...
"""
    handler = '@server.on("worker_registered")'
    for text, topics in (
        (source.replace("OPTIONS", ""), ["worker"]),
        (source.replace("OPTIONS", ", load_fnc=lambda: 0.1"), ["job", "load", "worker"]),
        (source.replace("OPTIONS", ", load_fnc=lambda: 0.1").replace(handler, ""), ["job", "load", "worker"]),
        (source.replace("OPTIONS", "").replace(handler, ""), []),
    ):
        assert facts_of(load_app(f"{make_agent(text)}:server")).topics == topics

"""Releases of livekit-agents that are tried out at night: those between the oldest and the newest, and the pre-release.

Anybody's next upload of that one could fail it. The file's name keeps it out of ``make test``;
``pytest tests/entrypoints/livekit_releases.py`` runs it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from releases import BETWEEN, PRERELEASE, environment
from test_contract import cache, check

__all__ = ["cache"]

LOAD = """\
import sys
from greenroom.errors import AppLoadError
from greenroom.zygote.loader import load_app
try:
    load_app(sys.argv[1])
except AppLoadError as error:
    print(error)
"""

AGENT = """\
from livekit.agents import AgentServer, JobContext
{imports}

server = AgentServer(agent_name="greeter"{options})

@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None: ...

{body}
"""

A2A = """
@server.a2a_session(endpoint="booking", description="Books.")
async def booking(ctx) -> str:
    return "booked"
"""

GET = """
@server.http.get("/token")
async def token(request): ...
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("release", [*BETWEEN, PRERELEASE])
def test_the_contract_holds(release: str, cache: Path) -> None:
    check(release, cache)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("imports", "options", "body", "named"),
    [
        ("", "", GET, "the HTTP route /token"),
        (
            "from starlette.applications import Starlette",
            "",
            'server.mount("/api", Starlette())',
            "the HTTP route /api",
        ),
        ("", ", storage=object()", "", "storage"),
        ("", ", storage=object()", A2A + GET, "a2a_session(endpoint='booking'), the HTTP route /token, storage"),
    ],
)
def test_what_is_no_room_is_refused_by_name(
    imports: str, options: str, body: str, named: str, cache: Path, tmp_path: Path
) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text(AGENT.format(imports=imports, options=options, body=body))
    done = subprocess.run(
        [environment(PRERELEASE, cache), "-c", LOAD, agent], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.startswith(f"the AgentServer has {named}: Greenroom serves rooms only."), (
        done.stdout + done.stderr
    )

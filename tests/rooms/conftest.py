"""A real LiveKit server for each test that asks for ``livekit``.

A machine that has neither the built server nor Go skips these tests; where ``CI`` is set they fail instead, so that
they are never skipped unseen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rooms.livekit_server import LiveKitServer
from rooms.loopback import build_shim, has_ordinary_interface

from scripts import livekit_server


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Build the server before the tests, whose own deadlines are too short for that."""
    wanted = any("livekit_binary" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly and livekit_server.can_build():
        try:
            livekit_server.ensure()
        except livekit_server.NotBuilt as error:
            print(f"The LiveKit server could not be built: {error}")


@pytest.fixture(scope="session")
def livekit_binary() -> Path:
    if not livekit_server.is_built():
        _missing("the LiveKit server is not built; `python3 scripts/livekit_server.py` builds it where there is Go")
    return livekit_server.cached()


@pytest.fixture(scope="session")
def webrtc_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lets WebRTC clients find an interface, in all processes that are started from now on."""
    with pytest.MonkeyPatch.context() as patch:
        if not has_ordinary_interface():
            try:
                patch.setenv("LD_PRELOAD", str(build_shim(tmp_path_factory.mktemp("shim"))))
            except RuntimeError as error:
                _missing(str(error))
        yield


@pytest.fixture
def livekit(livekit_binary: Path, webrtc_network: None, tmp_path: Path) -> Iterator[LiveKitServer]:
    """A running server of the test's own. What its log says of agents and of troubles is shown when the test fails."""
    server = LiveKitServer(livekit_binary, tmp_path / "livekit.log")
    try:
        asyncio.run(server.start())
        yield server
    finally:
        asyncio.run(server.kill())
        print("\n".join(filter(_is_telling, server.log.splitlines())))


def _is_telling(line: str) -> bool:
    return "\tINFO\t" not in line or "livekit.agents" in line or "agent/client.go" in line


def _missing(reason: str) -> Any:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

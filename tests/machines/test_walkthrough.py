"""docs/several-machines.md does what it says: its section "Try it on one machine" is followed, in one shell."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from support import DEADLINE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "several-machines.md"
BLOCK = re.compile(r"^(?:<!-- says: ([^\n]*) -->\n)?```sh\n(.*?)^```", re.M | re.S)
PORTS = ("8080", "8701", "8702", "8703")
END = "end-of-block"
BUSY = {"GREENROOM_MAX_CPU_WAIT_MS": "off", "GREENROOM_MIN_FREE_MEMORY_MB": "off", "GREENROOM_OFFER_TIMEOUT": "20"}
"""A machine that is busy with other tests refuses no session for that."""


def section() -> str:
    return PAGE.read_text().partition("\n## Try it on one machine\n")[2].partition("\n## ")[0]


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def test_the_section_has_what_a_newcomer_does() -> None:
    blocks = BLOCK.findall(section())
    assert [bool(says) for says, _ in blocks] == [True] * 7 + [False]


@pytest.mark.more
@pytest.mark.in_pairs
@pytest.mark.usefixtures("installed")
async def test_a_newcomer_kills_a_worker_and_sees_what_each_caller_is_told(tmp_path: Path) -> None:
    (app,) = re.findall(r"^```python\n(.*?)^```", section(), re.M | re.S)
    (tmp_path / "agent.py").write_text(app)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    with (tmp_path / "errors").open("wb") as errors:
        shell = await asyncio.create_subprocess_exec(
            "bash",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=tmp_path,
            env={**os.environ, **BUSY, "PATH": path, "no_proxy": "127.0.0.1"},
            start_new_session=True,
        )
    try:
        for says, block in BLOCK.findall(section()):
            told = await run(shell, _with(ports, block))
            assert re.search(says, told, re.M | re.S), (block, told, (tmp_path / "errors").read_text())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        await shell.wait()


def _with(ports: dict[str, str], text: str) -> str:
    """Replace the ports of the page, which may be in use; the default port is not in the text."""
    text = text.replace("greenroom init haproxy agent.py", "greenroom init haproxy agent.py --bind 127.0.0.1:8080")
    return re.sub(r"\b(8080|870[123])\b", lambda match: ports[match[1]], text)


async def run(shell: asyncio.subprocess.Process, block: str) -> str:
    """Run a block, and return what it prints."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{block}\necho\necho {END}\n".encode())
    async with asyncio.timeout(2 * DEADLINE):
        printed = await shell.stdout.readuntil(f"\n{END}\n".encode())
    return printed.decode().removesuffix(f"\n{END}\n")

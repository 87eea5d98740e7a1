"""A real nginx in front of a worker, as a user of its own folder: the one that is installed."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support import DEADLINE

__all__ = ["nginx"]

_CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    server {{
        listen 127.0.0.1:{port};
        {server}
    }}
}}
"""


def _program() -> str:
    path = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    message = "there is no nginx on this machine (Debian: apt-get install nginx-light)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@asynccontextmanager
async def nginx(folder: Path, server: str) -> AsyncIterator[str]:
    """Run nginx with this inside of its ``server``; the value is its URL."""
    program, port = _program(), _free_port()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, server=server))
    errors = folder / "errors"
    process = await asyncio.create_subprocess_exec(
        program, "-e", str(errors), "-p", str(folder), "-c", str(config), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await _listens(port, process, errors)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int, process: asyncio.subprocess.Process, errors: Path) -> None:
    async with asyncio.timeout(DEADLINE):
        while True:
            assert process.returncode is None, errors.read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            return


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port

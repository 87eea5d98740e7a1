"""A real LiveKit server on loopback: started, restarted, killed, and none of it left over.

What was found, with LiveKit server 1.13.5 and rtc 1.1.21, by two participants that had to hear each other:

- The server alone on 127.0.0.1, HTTP and one UDP socket for all media: works, and is what runs here. The client never
  offers 127.0.0.1 itself; it sends from its address on an ordinary interface, such as eth0, to 127.0.0.1, which the
  kernel delivers within the machine. The chosen pair was 192.0.2.2:51070 -> 127.0.0.1:17882, both host candidates,
  over UDP. The interface needs an IPv4 address, but no route to anywhere. Connected and heard within 0.5 s.
- It takes four options together: ``enable_loopback_candidate`` and ``ips.includes`` open the socket on 127.0.0.1 and
  on no other address, ``node_ip`` advertises it, and ``tcp_port: 0`` closes a port that listens on all addresses.
- The server on the address of eth0 alone (``node_ip`` and ``ips.includes``): works as well. It is not used, because a
  test server should be reachable from its own machine only, and that address differs between machines.
- An interface that has IPv6 only: fails. The server does not bind ::1, even when ``ips.includes`` has it.
- Only ``lo``: fails, because libwebrtc takes no interface that is flagged as loopback or called "lo". It opens no
  socket at all, and ``connect`` fails after a minute, also where the server offers ICE over TCP. It works once the list
  of interfaces is altered inside the client: see ``loopback.py``, which the fixtures use where it is needed.
- No STUN server is asked: ``node_ip`` spares the server that, and ``stun_servers`` names a port on loopback where
  nobody listens, because an empty list sends the clients to a public one.
- ``agents.target_load``: at its default of 0.7 a server dispatches nothing to workers that report a load of 0.7 or
  more, even when they say that they are available.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from rooms.server_api import ServerApi, Tokens
from support import DEADLINE, eventually, wait_for_exit

__all__ = ["LiveKitServer", "die_with_parent"]

HOST = "127.0.0.1"
KEY = "greenroom-tests"
SECRET = "not a secret: a server on loopback, for tests"
ATTEMPTS = 3
PR_SET_PDEATHSIG = 1


class LiveKitServer:
    """``async with LiveKitServer(binary, log)``, or ``start`` and ``kill``; ``config`` replaces parts of its own.

    It is tied to no event loop: a fixture may start it, and the test's own loop may restart it.
    """

    api_key = KEY
    api_secret = SECRET

    def __init__(self, binary: Path, log: Path, **config: Any) -> None:
        self._binary = binary
        self._log = log
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self._udp_port = _free_ports()
        self.tokens = Tokens(KEY, SECRET)

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which livekit-agents finds a server."""
        return {"LIVEKIT_URL": self.url, "LIVEKIT_API_KEY": KEY, "LIVEKIT_API_SECRET": SECRET}

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "the LiveKit server does not run"
        return self._process.pid

    def api(self) -> ServerApi:
        """Its API: ``async with server.api() as api``."""
        return ServerApi(self.http_url, self.tokens)

    async def __aenter__(self) -> LiveKitServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.kill()
        if error is not None:
            print(self.log)

    # --- its life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start it and wait until it answers. A port that was taken meanwhile is replaced by another."""
        for attempts_left in reversed(range(ATTEMPTS)):
            said_before = len(self.log)
            self._spawn()
            if await self._answers():
                return
            said = self.log[said_before:]
            await self.kill()
            if not attempts_left or "address already in use" not in said:
                raise AssertionError(f"the LiveKit server did not start:\n{said}")
            self.port, self._udp_port = _free_ports()

    async def restart(self) -> None:
        """Crash it and start it again on the same ports; rooms and workers are forgotten."""
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        """End it in good order: participants are told to leave."""
        if self._process is None:
            return
        said_before = len(self.log)
        os.kill(self.pid, signal.SIGTERM)
        # After the first signal it waits for participants to leave by themselves, after the second no longer.
        await eventually(lambda: "exit requested" in self.log[said_before:], "the LiveKit server's answer to SIGTERM")
        os.kill(self.pid, signal.SIGTERM)
        await self._ended()

    async def kill(self) -> None:
        """SIGKILL, as a crash of the machine would end it: nobody is told anything."""
        if self._process is None:
            return
        os.kill(self.pid, signal.SIGKILL)
        await self._ended()

    def _spawn(self) -> None:
        config = json.dumps(_configuration(self.port, self._udp_port) | self._config)  # JSON is YAML
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "--config-body", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (it takes no lock)
            )

    async def _ended(self) -> None:
        assert self._process is not None
        await wait_for_exit(os.pidfd_open(self.pid))
        self._process.wait()
        self._process = None

    async def _answers(self) -> bool:
        """Wait until it answers; False if it ends before."""
        assert self._process is not None
        async with asyncio.timeout(DEADLINE), aiohttp.ClientSession() as session:
            while self._process.poll() is None:
                try:
                    async with session.get(self.http_url) as response:
                        if response.status == 200:
                            return True
                except aiohttp.ClientError:
                    pass  # not yet
                await asyncio.sleep(0.01)
        return False


def die_with_parent() -> None:
    """For ``preexec_fn``: a test run that is killed leaves nothing behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _configuration(port: int, udp_port: int) -> dict[str, Any]:
    return {
        "port": port,
        "bind_addresses": [HOST],
        "keys": {KEY: SECRET},
        "rtc": {
            "udp_port": udp_port,
            "tcp_port": 0,
            "node_ip": HOST,
            "enable_loopback_candidate": True,
            "ips": {"includes": [f"{HOST}/32"]},
            "stun_servers": [f"{HOST}:3478"],
        },
        "agents": {"target_load": 2},
    }


def _free_ports() -> tuple[int, int]:
    """One for TCP and one for UDP, below the range that the kernel gives to clients.

    From that range, another process could take the port between a kill and a restart; even a client that tries to
    reconnect could be given it as its own, and so connect to itself.
    """
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return _free_port(socket.SOCK_STREAM, first_of_clients), _free_port(socket.SOCK_DGRAM, first_of_clients)


def _free_port(kind: socket.SocketKind, below: int) -> int:
    while True:
        port = random.randrange(min(10_000, below - 2_000), below)
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue  # taken
            return port

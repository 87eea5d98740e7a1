"""The app of the hostile hour: honest sessions, and sessions that attack their worker from inside."""

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import greenroom
from greenroom.wire.frames import encode_frame

app = greenroom.App()
FRAME_BYTES = 63 << 20


@app.entrypoint
async def entrypoint(ctx: greenroom.JobContext) -> object:
    metadata = ctx.job.metadata
    return await ROLES[metadata["role"]](metadata)


async def honest(metadata: dict) -> object:
    """Beat as a call's audio does, and say how long the longest gap between two beats was."""
    end, last, beats, gap = time.monotonic() + metadata["seconds"], time.monotonic(), 0, 0.0
    while last < end:
        await asyncio.sleep(0.05)
        now = time.monotonic()
        beats, gap, last = beats + 1, max(gap, now - last - 0.05), now
    return {"nonce": metadata["nonce"], "beats": beats, "gap": round(gap, 3)}


async def crash(metadata: dict) -> object:
    if metadata["how"] == "segv":
        ctypes.string_at(0)
    if metadata["how"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if metadata["how"] == "exit":
        os._exit(7)
    if metadata["how"] == "close":
        os.closerange(3, 256)
        os._exit(7)
    raise RuntimeError("as asked")


async def flood(metadata: dict) -> object:
    """Write to stdout, some MB a second, with or without an end of line."""
    piece = b"x" * 65535 + metadata["end"].encode()
    end, pause = time.monotonic() + metadata["seconds"], len(piece) / metadata["mb_s"] / 1e6
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            os.write(1, piece)
        await asyncio.sleep(pause)
    return None


async def records(metadata: dict) -> object:
    """Log what breaks a line, a terminal or a parser."""
    logger = logging.getLogger("hostile\nlogger")
    ugly = '\x1b[2J\x1b]0;owned\x07\r\n{"level": "error"}\x00\x85\u2028\ud800' + "y" * 500
    end = time.monotonic() + metadata["seconds"]
    while time.monotonic() < end:
        logger.warning(
            "%s", ugly, extra={"big": "z" * 60_000, "deep": json.loads("[" * 90 + "]" * 90), ugly[:20]: ugly}
        )
        await asyncio.sleep(1 / metadata["per_second"])
    return None


async def big(metadata: dict) -> object:
    return "x" * (metadata["mb"] << 20)


async def unfinished(metadata: dict) -> object:
    """Send all of a large result but its last bytes, and wait."""
    sock = control_channel()
    frame = memoryview(encode_frame(21, b"0123456789", bytes(FRAME_BYTES)))[:-100]
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(metadata["seconds"]):
            await asyncio.get_running_loop().sock_sendall(sock, frame)
    await asyncio.sleep(metadata["seconds"])
    os._exit(7)


def control_channel() -> socket.socket:
    """The one Unix stream socket of a session whose other end somebody else has made: its supervisor."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=os.dup(fd))
            if (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_STREAM) and made_by(sock) != os.getpid():
                sock.setblocking(False)
                return sock
            sock.close()
    raise RuntimeError("no control channel was found")


def made_by(sock: socket.socket) -> int:
    return struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


async def truncate(metadata: dict) -> object:
    """Cut the heartbeat pages off, through the zygote's file descriptor."""
    done = []
    for fd in os.listdir(f"/proc/{os.getppid()}/fd"):
        path = f"/proc/{os.getppid()}/fd/{fd}"
        with contextlib.suppress(OSError):
            if "heartbeat" in os.readlink(path):
                os.ftruncate(os.open(path, os.O_RDWR), 0)
                done.append(path)
    await asyncio.sleep(1)
    return done


async def family(metadata: dict) -> object:
    """Have many children, which all end in one moment."""
    gate, closed = os.pipe()
    script = "import os; os.read(0, 1)"
    children = [
        subprocess.Popen([sys.executable, "-S", "-E", "-c", script], stdin=gate) for _ in range(metadata["children"])
    ]
    os.close(gate)
    await asyncio.sleep(metadata["seconds"])
    os.close(closed)
    await asyncio.sleep(0.5)
    return len(children)


ROLES = {each.__name__: each for each in (honest, crash, flood, records, big, unfinished, truncate, family)}

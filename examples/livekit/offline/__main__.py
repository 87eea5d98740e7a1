"""``python -m examples.livekit.offline``: serve until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal

from aiohttp import web

from . import audio, chat, realtime
from .hearing import listen
from .openai_api import name_answer, require_key

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.livekit.offline", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8901, help="port; 0 for a free port")
    parser.add_argument("--voice", default="en-us+f3", help="voice of espeak-ng")
    parser.add_argument("--speed", type=float, default=1.0, help="speed of the speech; 1.0 is 150 words per minute")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    asyncio.run(serve(options.host, options.port, options.voice, options.speed))


async def serve(host: str, port: int, voice_name: str, speed: float) -> None:
    voice = audio.voice_of(voice_name, speed)
    listen(voice("hello"), audio.SPEECH_RATE)  # loads both engines, or fails at once
    app = web.Application(middlewares=[require_key], client_max_size=32 << 20)
    app.on_response_prepare.append(name_answer)
    chat.add_routes(app.router)
    audio.add_routes(app.router, voice)
    realtime.add_routes(app.router, voice)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        logger.info("offline provider: http://%s:%d/v1", *runner.addresses[0][:2])
        await _interrupted()
    finally:
        await runner.cleanup()


async def _interrupted() -> None:
    interrupted = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, interrupted.set)
    await interrupted.wait()


main()

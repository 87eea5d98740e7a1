"""``POST /v1/audio/speech`` and ``POST /v1/audio/transcriptions``: the voice and the ear."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import wave
from collections.abc import Callable

import numpy as np
from aiohttp import BodyPartReader, web

from .hearing import listen
from .openai_api import BadRequest
from .speech import Samples, say

__all__ = ["SPEECH_RATE", "add_routes", "voice_of"]

logger = logging.getLogger(__name__)

SPEECH_RATE = 24000  # what the API's `pcm` means
_CHUNK_BYTES = SPEECH_RATE // 10 * 2


def add_routes(router: web.UrlDispatcher, voice: Callable[[str], Samples]) -> None:
    """``voice`` makes samples of a text, at `SPEECH_RATE`."""

    async def speak(request: web.Request) -> web.StreamResponse:
        return await _speak(request, voice)

    router.add_post("/v1/audio/speech", speak)
    router.add_post("/v1/audio/transcriptions", transcribe)


async def _speak(request: web.Request, voice: Callable[[str], Samples]) -> web.StreamResponse:
    try:
        options = await request.json()
        text = str(options["input"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"The request has no text to speak: {error!r}") from error
    samples = await asyncio.to_thread(voice, text)
    logger.info("spoken: %s", text)
    if options.get("response_format") != "pcm":
        # There is no encoder here. A client that reads what the answer calls itself can play it all the same.
        return web.Response(body=_as_wav(samples), content_type="audio/wav")
    if options.get("stream_format") == "sse":
        return await _as_events(request, samples)
    return web.Response(body=samples.tobytes(), content_type="audio/pcm")


async def _as_events(request: web.Request, samples: Samples) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    pcm = samples.tobytes()
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    events = [
        {"type": "speech.audio.delta", "audio": base64.b64encode(pcm[at : at + _CHUNK_BYTES]).decode()}
        for at in range(0, len(pcm), _CHUNK_BYTES)
    ]
    for event in (*events, {"type": "speech.audio.done", "usage": usage}):
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    await response.write_eof()
    return response


async def transcribe(request: web.Request) -> web.Response:
    fields, recording = await _form(request)
    samples, rate = _from_wav(recording)
    text = await asyncio.to_thread(listen, samples, rate)
    logger.info("heard: %s", text)
    match fields.get("response_format", "json"):
        case "text":
            return web.Response(text=text + "\n")
        case "verbose_json":
            duration = len(samples) / rate
            return web.json_response({"task": "transcribe", "language": "english", "duration": duration, "text": text})
        case _:
            return web.json_response({"text": text})


async def _form(request: web.Request) -> tuple[dict[str, str], bytes]:
    fields, recording = dict[str, str](), b""
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        if part.name == "file":
            recording = bytes(await part.read())
        elif part.name:
            fields[part.name] = await part.text()
    return fields, recording


def _as_wav(samples: Samples) -> bytes:
    body = io.BytesIO()
    with wave.open(body, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SPEECH_RATE)
        file.writeframes(samples.tobytes())
    return body.getvalue()


def _from_wav(recording: bytes) -> tuple[Samples, int]:
    try:
        with wave.open(io.BytesIO(recording)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            pcm = file.readframes(file.getnframes())
    except (EOFError, wave.Error) as error:
        raise BadRequest(f"Only WAV files can be transcribed here: {error}") from error
    if width != 2:
        raise BadRequest(f"Only 16-bit WAV files can be transcribed here, not {width * 8}-bit ones")
    return np.frombuffer(pcm, np.int16)[::channels], rate


def voice_of(name: str, speed: float) -> Callable[[str], Samples]:
    """The voice of this provider: every voice that is asked for sounds like it."""
    return lambda text: say(text, SPEECH_RATE, voice=name, speed=speed)

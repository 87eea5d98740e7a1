"""``GET /v1/realtime``: a speech-to-speech model as a WebSocket. It hears, and answers what the script says."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
from aiohttp import WSMsgType, web

from .audio import SPEECH_RATE
from .conversation import Conversation, ItemError
from .dialogue import answer
from .hearing import listen
from .openai_api import error_body, new_id
from .response import Response
from .session_settings import SERVER_VAD, merge, new_settings
from .speech import Samples
from .turns import Turn, TurnDetector, TurnSettings

__all__ = ["add_routes"]

logger = logging.getLogger(__name__)

_CHUNK = SPEECH_RATE // 10
# A model speaks faster than its words are heard, but not all at once: an interruption must find it speaking.
_PACE = 5.0


def add_routes(router: web.UrlDispatcher, voice: Callable[[str], Samples]) -> None:
    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=16 << 20)
        await socket.prepare(request)
        await Session(socket, voice, request.query.get("model", "offline")).run()
        return socket

    router.add_get("/v1/realtime", serve)


class Session:
    """One connection: one caller, one conversation, at most one response at a time."""

    def __init__(self, socket: web.WebSocketResponse, voice: Callable[[str], Samples], model: str) -> None:
        self._socket = socket
        self._voice = voice
        self._settings = new_settings(model)
        self._conversation = Conversation()
        self._turns = TurnDetector(SPEECH_RATE, TurnSettings.of(SERVER_VAD))
        self._talking_item = ""
        self._responding: asyncio.Task[None] | None = None

    async def run(self) -> None:
        await self._send({"type": "session.created", "session": self._settings})
        try:
            async for message in self._socket:
                if message.type == WSMsgType.TEXT:
                    await self._take(message.json())
        finally:
            await self._cancel("client_cancelled")

    async def _take(self, event: dict[str, Any]) -> None:
        handle = self._HANDLERS.get(event.get("type", ""))
        try:
            if handle is None:
                raise ItemError(f"Invalid value: {event.get('type')!r}", "invalid_value")
            await handle(self, event)
        except ItemError as error:
            await self._refuse(event, str(error), error.code)
        except (KeyError, TypeError, ValueError) as error:
            await self._refuse(event, f"The event cannot be read: {error!r}", "invalid_value")

    async def _refuse(self, event: dict[str, Any], message: str, code: str) -> None:
        error = error_body(message, code=code, event_id=event.get("event_id"))
        await self._send({"type": "error", "error": error})

    async def _send(self, event: dict[str, Any]) -> None:
        with suppress(ConnectionResetError):  # the caller has gone; its session ends with the last message
            await self._socket.send_json({"event_id": new_id("event"), **event})

    # --- the session and its items ---------------------------------------------------------------

    async def _update_session(self, event: dict[str, Any]) -> None:
        merge(self._settings, event["session"])
        if detection := self._settings["audio"]["input"]["turn_detection"]:
            self._turns.settings = TurnSettings.of(detection)
        await self._send({"type": "session.updated", "session": self._settings})

    async def _create_item(self, event: dict[str, Any]) -> None:
        item = event["item"] | {"object": "realtime.item", "status": "completed"}
        await self._add(item, event.get("previous_item_id"))

    async def _add(self, item: dict[str, Any], after: str | None = None) -> None:
        previous = self._conversation.insert(item, after)
        await self._send({"type": "conversation.item.added", "previous_item_id": previous, "item": item})
        await self._send({"type": "conversation.item.done", "previous_item_id": previous, "item": item})

    async def _delete_item(self, event: dict[str, Any]) -> None:
        self._conversation.delete(event["item_id"])
        await self._send({"type": "conversation.item.deleted", "item_id": event["item_id"]})

    async def _truncate_item(self, event: dict[str, Any]) -> None:
        self._conversation.get(event["item_id"])["content"] = []
        place = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
        await self._send({"type": "conversation.item.truncated", **place})

    async def _retrieve_item(self, event: dict[str, Any]) -> None:
        item = self._conversation.get(event["item_id"])
        await self._send({"type": "conversation.item.retrieved", "item": item})

    # --- what is heard ---------------------------------------------------------------------------

    async def _append_audio(self, event: dict[str, Any]) -> None:
        samples = np.frombuffer(base64.b64decode(event["audio"]), np.int16)
        detection = self._settings["audio"]["input"]["turn_detection"]
        if not detection:
            self._turns.keep(samples)
            return
        for turn in self._turns.feed(samples):
            await self._turn(turn, detection)

    async def _turn(self, turn: Turn, detection: dict[str, Any]) -> None:
        at = int(turn.at * 1000)
        if turn.kind == "started":
            self._talking_item = new_id("item")
            place = {"item_id": self._talking_item, "audio_start_ms": at}
            await self._send({"type": "input_audio_buffer.speech_started", **place})
            if detection.get("interrupt_response", True):
                await self._cancel("turn_detected")
            return
        place = {"item_id": self._talking_item, "audio_end_ms": at}
        await self._send({"type": "input_audio_buffer.speech_stopped", **place})
        await self._commit(turn.audio, self._talking_item)
        if detection.get("create_response", True):
            self._respond({})

    async def _commit_audio(self, event: dict[str, Any]) -> None:
        audio = self._turns.take()
        if len(audio) < SPEECH_RATE // 10:
            raise ItemError("Error committing input audio buffer: buffer too small", "input_audio_buffer_commit_empty")
        await self._commit(audio, new_id("item"))

    async def _commit(self, audio: Samples, item_id: str) -> None:
        transcript = await asyncio.to_thread(listen, audio, SPEECH_RATE)
        logger.info("heard: %s", transcript)
        await self._send({"type": "input_audio_buffer.committed", "item_id": item_id})
        part = {"type": "input_audio", "transcript": transcript}
        message = {"id": item_id, "object": "realtime.item", "type": "message", "role": "user", "status": "completed"}
        await self._add(message | {"content": [part | {"transcript": None}]})
        self._conversation.get(item_id)["content"] = [part]
        if self._settings["audio"]["input"]["transcription"]:
            usage = {"type": "duration", "seconds": len(audio) / SPEECH_RATE}
            place = {"item_id": item_id, "content_index": 0, "transcript": transcript, "usage": usage}
            await self._send({"type": "conversation.item.input_audio_transcription.completed", **place})

    async def _clear_audio(self, event: dict[str, Any]) -> None:
        self._turns.take()
        await self._send({"type": "input_audio_buffer.cleared"})

    # --- what is answered ------------------------------------------------------------------------

    async def _create_response(self, event: dict[str, Any]) -> None:
        if self._responding and not self._responding.done():
            message = "Conversation already has an active response in progress"
            raise ItemError(message, "conversation_already_has_active_response")
        self._respond(event.get("response") or {})

    async def _cancel_response(self, event: dict[str, Any]) -> None:
        if not await self._cancel("client_cancelled"):
            raise ItemError("Cancellation failed: no active response found", "response_cancel_not_active")

    def _respond(self, wishes: dict[str, Any]) -> None:
        self._responding = asyncio.create_task(self._run_response(wishes))

    async def _run_response(self, wishes: dict[str, Any]) -> None:
        tools = self._settings["tools"] if wishes.get("tools") is None else wishes["tools"]
        reply = answer(self._conversation.moment(tools, wishes.get("tool_choice") or self._settings["tool_choice"]))
        logger.info("realtime: %s", reply)
        response = Response(self._conversation, wishes.get("metadata"))
        await self._send(response.created())
        try:
            for event in response.events(reply, self._voice, _CHUNK):
                await self._send(event)
                if event["type"] == "response.output_audio.delta":
                    await asyncio.sleep(_CHUNK / SPEECH_RATE / _PACE)
        except asyncio.CancelledError as cancelled:
            for event in response.cut("cancelled", cancelled.args[0]):
                await self._send(event)
            raise
        await self._send(response.done())

    async def _cancel(self, reason: str) -> bool:
        """End the response that is under way; returns whether there was one."""
        running = self._responding
        if running is None or running.done():
            return False
        running.cancel(reason)
        with suppress(asyncio.CancelledError):
            await running
        return True

    _HANDLERS: ClassVar = {
        "session.update": _update_session,
        "conversation.item.create": _create_item,
        "conversation.item.delete": _delete_item,
        "conversation.item.truncate": _truncate_item,
        "conversation.item.retrieve": _retrieve_item,
        "input_audio_buffer.append": _append_audio,
        "input_audio_buffer.commit": _commit_audio,
        "input_audio_buffer.clear": _clear_audio,
        "response.create": _create_response,
        "response.cancel": _cancel_response,
    }

"""The server events of one response, in the order in which the realtime API sends them. Pure, but for the ids."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

from .conversation import Conversation
from .dialogue import Call, Say
from .openai_api import new_id
from .speech import Samples

__all__ = ["Response"]

Event = dict[str, Any]


class Response:
    """One answer of the model: a spoken message or a call of a tool."""

    def __init__(self, conversation: Conversation, metadata: object = None) -> None:
        self.id = new_id("resp")
        self.status = "in_progress"
        self._conversation = conversation
        self._metadata = metadata
        self._begun: dict[str, Any] = {}
        self._output: list[dict[str, Any]] = []

    def created(self) -> Event:
        return {"type": "response.created", "response": self._resource()}

    def events(self, reply: Say | Call, voice: Callable[[str], Samples], chunk: int) -> Iterator[Event]:
        """All between ``response.created`` and ``response.done``. Audio comes in chunks of so many samples."""
        yield from self._spoken(reply.text, voice(reply.text), chunk) if isinstance(reply, Say) else self._called(reply)

    def done(self) -> Event:
        self.status = "completed"
        return {"type": "response.done", "response": self._resource()}

    def cut(self, status: str, reason: str) -> Iterator[Event]:
        """What comes instead of the rest when it is not to go on."""
        self.status = status
        if self._begun and not self._output:
            yield from self._end(self._begun, "incomplete")
        details = {"type": status, "reason": reason}
        yield {"type": "response.done", "response": self._resource() | {"status_details": details}}

    def _resource(self) -> dict[str, Any]:
        usage = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0}
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "output": self._output,
            "conversation_id": self._conversation.id,
            "output_modalities": ["audio"],
            "metadata": self._metadata,
            "usage": None if self.status == "in_progress" else usage,
        }

    def _spoken(self, text: str, samples: Samples, chunk: int) -> Iterator[Event]:
        item = {"id": new_id("item"), "object": "realtime.item", "type": "message", "role": "assistant"}
        place = {"response_id": self.id, "item_id": item["id"], "output_index": 0, "content_index": 0}
        part = {"type": "audio", "transcript": text}
        yield from self._begin(item | {"status": "in_progress", "content": []})
        yield {"type": "response.content_part.added", **place, "part": {"type": "audio", "transcript": ""}}
        for at, word in enumerate(text.split(" ")):
            delta = word if at == 0 else f" {word}"
            yield {"type": "response.output_audio_transcript.delta", **place, "delta": delta}
        for at in range(0, len(samples), chunk):
            delta = base64.b64encode(samples[at : at + chunk].tobytes()).decode()
            yield {"type": "response.output_audio.delta", **place, "delta": delta}
        yield {"type": "response.output_audio.done", **place}
        yield {"type": "response.output_audio_transcript.done", **place, "transcript": text}
        yield {"type": "response.content_part.done", **place, "part": part}
        yield from self._end(item, content=[{"type": "output_audio", "transcript": text}])

    def _called(self, call: Call) -> Iterator[Event]:
        named = {"call_id": new_id("call"), "name": call.tool}
        item = {"id": new_id("item"), "object": "realtime.item", "type": "function_call", **named}
        place = {"response_id": self.id, "item_id": item["id"], "output_index": 0, "call_id": named["call_id"]}
        arguments = json.dumps(call.arguments)
        yield from self._begin(item | {"status": "in_progress", "arguments": ""})
        yield {"type": "response.function_call_arguments.delta", **place, "delta": arguments}
        yield {"type": "response.function_call_arguments.done", **place, "name": call.tool, "arguments": arguments}
        yield from self._end(item, arguments=arguments)

    def _begin(self, item: dict[str, Any]) -> Iterator[Event]:
        yield {"type": "response.output_item.added", "response_id": self.id, "output_index": 0, "item": dict(item)}
        self._begun = item
        previous = self._conversation.insert(item)
        yield {"type": "conversation.item.added", "previous_item_id": previous, "item": dict(item)}

    def _end(self, item: dict[str, Any], status: str = "completed", **content: Any) -> Iterator[Event]:
        finished = item | {"status": status} | content
        self._conversation.get(item["id"]).update(finished)
        self._output.append(finished)
        yield {"type": "conversation.item.done", "item": finished}
        yield {"type": "response.output_item.done", "response_id": self.id, "output_index": 0, "item": finished}

"""``POST /v1/chat/completions``: the script's answers, streamed word by word or whole; and ``GET /v1/models``."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from .dialogue import Call, Moment, Say, answer
from .openai_api import BadRequest, new_id

__all__ = ["add_routes", "moment_of"]

logger = logging.getLogger(__name__)


def add_routes(router: web.UrlDispatcher) -> None:
    router.add_post("/v1/chat/completions", complete)
    router.add_get("/v1/models", list_models)


async def list_models(request: web.Request) -> web.Response:
    model = {"id": "offline", "object": "model", "created": 0, "owned_by": "greenroom"}
    return web.json_response({"object": "list", "data": [model]})


async def complete(request: web.Request) -> web.StreamResponse:
    try:
        body = await request.json()
        reply = answer(moment_of(body))
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"The request is not a chat completion: {error!r}") from error
    logger.info("chat: %s", reply)
    frame = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": body.get("model", "offline")}
    if not body.get("stream"):
        choice = {"index": 0, "message": _message(reply), "finish_reason": _finish(reply)}
        return web.json_response(frame | {"object": "chat.completion", "choices": [choice], "usage": _usage()})
    return await _stream(request, frame | {"object": "chat.completion.chunk"}, reply, body)


def moment_of(body: dict[str, Any]) -> Moment:
    """What has just happened, from the messages of a request."""
    messages = [message for message in body["messages"] if message["role"] not in ("system", "developer")]
    last = messages[-1] if messages else {"role": "nobody"}
    calls = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()}
    is_result = last["role"] == "tool"
    return Moment(
        tools=frozenset(tool["function"]["name"] for tool in body.get("tools") or ()),
        may_call=body.get("tool_choice") != "none",
        said=_text(last["content"]) if last["role"] == "user" else None,
        result=_text(last["content"]) if is_result else None,
        result_of=calls.get(last["tool_call_id"]) if is_result else None,
    )


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


async def _stream(
    request: web.Request, frame: dict[str, Any], reply: Say | Call, body: dict[str, Any]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for delta in _deltas(reply):
        await _send(response, frame | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    await _send(response, frame | {"choices": [{"index": 0, "delta": {}, "finish_reason": _finish(reply)}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        await _send(response, frame | {"choices": [], "usage": _usage()})
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def _send(response: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def _deltas(reply: Say | Call) -> Iterator[dict[str, Any]]:
    if isinstance(reply, Say):
        yield {"role": "assistant", "content": ""}
        words = reply.text.split(" ")
        yield from ({"content": word if at == 0 else f" {word}"} for at, word in enumerate(words))
        return
    call = _tool_call(reply)
    arguments = call["function"].pop("arguments")
    yield {"role": "assistant", "content": None, "tool_calls": [call | {"index": 0}]}
    for half in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": half}}]}


def _message(reply: Say | Call) -> dict[str, Any]:
    if isinstance(reply, Say):
        return {"role": "assistant", "content": reply.text}
    return {"role": "assistant", "content": None, "tool_calls": [_tool_call(reply)]}


def _tool_call(reply: Call) -> dict[str, Any]:
    function = {"name": reply.tool, "arguments": json.dumps(reply.arguments)}
    return {"id": new_id("call"), "type": "function", "function": function}


def _finish(reply: Say | Call) -> str:
    return "stop" if isinstance(reply, Say) else "tool_calls"


def _usage() -> dict[str, int]:
    return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

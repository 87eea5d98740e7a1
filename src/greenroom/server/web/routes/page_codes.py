"""Operations by which a browser gets the worker's token: a code that works once, in a link of `greenroom page`."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web

from ..keys import Keys
from ..operations import Operation
from ..requests import json_response, read_body
from ..schema import ApiError, NewPageCode, Nothing, PageCode, PageToken

__all__ = ["CODE_SECONDS", "PageCodes", "PageCodesApi"]

CODE_SECONDS = 60.0
"""Time in which a code can be changed for the token."""
MOST_CODES = 100


class PageCodes:
    """Codes that were given out, and are neither used nor too old. ``now`` returns the time in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._codes: OrderedDict[str, float] = OrderedDict()
        """For each code: the time when it ends."""

    def new(self) -> str:
        """Return a new code. With too many codes, the oldest one ends."""
        code = secrets.token_urlsafe(24)
        self._codes[code] = self._now() + CODE_SECONDS
        while len(self._codes) > MOST_CODES:
            self._codes.popitem(last=False)
        return code

    def take(self, code: str) -> bool:
        """Use a code up. Return whether it was valid."""
        end = self._codes.pop(code, None)
        return end is not None and self._now() < end


class PageCodesApi:
    """Handlers for codes."""

    def __init__(self, keys: Keys, codes: PageCodes) -> None:
        self._keys = keys
        self._codes = codes

    def operations(self) -> list[Operation]:
        tags = ("page",)
        return [
            Operation(
                "POST",
                "/v1/page/codes",
                self.make_code,
                "Make a code for the page",
                {200: NewPageCode},
                body=Nothing,
                tags=tags,
            ),
            Operation(
                "POST",
                "/v1/page/token",
                self.change_code,
                "Change a code for the token",
                {200: PageToken},
                body=PageCode,
                errors=(403,),
                is_open=True,
                tags=tags,
            ),
        ]

    async def make_code(self, request: web.Request) -> web.Response:
        """Return a code for the link `URL/#code=CODE`. It works once, within 60 s.

        The code is null if the client needs no token: a browser of the same user needs none either.
        """
        await read_body(request, Nothing)
        needs_none = await self._keys.needs_none(request)
        return json_response(NewPageCode(None if needs_none else self._codes.new()))

    async def change_code(self, request: web.Request) -> web.Response:
        """Return the token for a code that was not used before. The token is null if the worker needs none."""
        body = await read_body(request, PageCode)
        if not self._codes.take(body.code):
            message = "this code was used before, or is older than 60 s. Run `greenroom page` again"
            raise ApiError(403, "wrong_code", message)
        token = self._keys.token.current
        return json_response(PageToken(None if token is None else token.decode()))

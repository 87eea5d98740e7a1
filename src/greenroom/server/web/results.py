"""A job's result as JSON that every client can read. Pure.

A result comes over the wire as JSON text in Python's dialect: it may hold ``NaN``, and escapes of half a
surrogate pair. It is passed on as it is, without decoding, unless one of these is in it.
"""

from __future__ import annotations

import base64
import re
from typing import Literal

from ...report import ExitReport

__all__ = ["ResultEncoding", "json_of", "strict_json"]

ResultEncoding = Literal["json", "base64"]

_SUSPICIOUS = (b"NaN", b"Infinity", b"\\ud")
_STRING_OR_CONSTANT = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-?Infinity|NaN')
_PAIR_OR_ESCAPE = re.compile(rb"\\ud[89ab]..\\ud[c-f]..|\\ud[89a-f]..|\\.")
_HALF_A_PAIR = 6


def json_of(report: ExitReport) -> tuple[bytes, ResultEncoding | None]:
    """The result as strict JSON, and how to read it; without a result, ``null`` and ``None``."""
    if report.result_payload is None:
        return b"null", None
    text = report.result_json
    if text is None:
        return b'"%s"' % base64.b64encode(report.result), "base64"
    return strict_json(text), "json"


def strict_json(text: bytes) -> bytes:
    """Make NaN and infinities ``null``, as JavaScript does, and half a surrogate pair the replacement character."""
    if not any(mark in text for mark in _SUSPICIOUS):
        return text
    strict, end = bytearray(), 0
    # Match by match and not by sub(), which would keep every other thread from running until all is done.
    for match in _STRING_OR_CONSTANT.finditer(text):
        strict += text[end : match.start()]
        strict += _strict_token(match[0])
        end = match.end()
    return bytes(strict + text[end:])


def _strict_token(token: bytes) -> bytes:
    if not token.startswith(b'"'):
        return b"null"
    return _PAIR_OR_ESCAPE.sub(_strict_escape, token) if b"\\ud" in token else token


def _strict_escape(match: re.Match[bytes]) -> bytes:
    # Half a pair is six bytes long; a pair has twelve, any other escape begins with two.
    return rb"\ufffd" if len(match[0]) == _HALF_A_PAIR else match[0]

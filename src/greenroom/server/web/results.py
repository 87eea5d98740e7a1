"""Results of jobs, as JSON that every client can read. Pure.

A process sends its result as JSON in Python's dialect, which may hold ``NaN`` and halves of surrogate pairs. A result
without these is passed on as it is, without decoding.
"""

from __future__ import annotations

import base64
import re
from typing import Literal

from ...exit_report import ExitReport

__all__ = ["ResultEncoding", "json_of", "strict_json"]

ResultEncoding = Literal["json", "base64"]

_SUSPICIOUS = (b"NaN", b"Infinity", b"\\ud")
# Each match is bounded to some hundred KiB. re holds the GIL during a match, so that no other thread runs.
_BESIDE_STRINGS = re.compile(rb'(?:[^"NI-]|-(?!I)){1,65536}+|(?P<constant>-?Infinity|NaN)|(?P<quote>")|.', re.DOTALL)
_IN_STRING = re.compile(
    rb'(?:[^"\\]{1,64}+|\\(?!ud[89a-f]).|\\ud[89ab][^"\\]{2}\\ud[c-f][^"\\]{2}){1,4096}+'
    rb'|(?P<half>\\ud[89a-f][^"\\]{2})|(?P<quote>")|.',
    re.DOTALL,
)
_STRICT = {"constant": b"null", "half": rb"\ufffd"}


def json_of(report: ExitReport) -> tuple[bytes, ResultEncoding | None]:
    """Return the result as strict JSON, and its encoding. Without a result, return ``null`` and ``None``."""
    if report.result_payload is None:
        return b"null", None
    text = report.result_json
    if text is None:
        return b'"%s"' % base64.b64encode(report.result), "base64"
    return strict_json(text), "json"


def strict_json(text: bytes) -> bytes:
    """Replace NaN and infinities by ``null``, as JavaScript does, and half a surrogate pair by U+FFFD."""
    if not any(mark in text for mark in _SUSPICIOUS):
        return text
    # Not by sub(), which keeps each piece as an object: fifty times the memory of the text.
    strict, end, pattern = bytearray(), 0, _BESIDE_STRINGS
    while match := pattern.match(text, end):
        strict += _STRICT.get(match.lastgroup or "", match[0])
        end = match.end()
        if match.lastgroup == "quote":
            pattern = _BESIDE_STRINGS if pattern is _IN_STRING else _IN_STRING
    return bytes(strict)

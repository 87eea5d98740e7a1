"""Texts that fit where they go: what is cut is marked, and what a terminal or JSON does not hold is written out."""

from __future__ import annotations

import math
import re

__all__ = ["ascii_only", "clean", "cut_end", "cut_start", "harmless", "name_of", "one_line"]

# C0 (but for tab and newline), DEL and C1 move the cursor, change colours and rename the window. Some viewers end
# a line at U+2028, U+2029 and U+0085. Bidi controls change the order in which characters are shown. Lone
# surrogates have no UTF-8 form. U+FFF9 to U+FFFB hide text, and U+206A to U+206F are deprecated controls.
_UNSAFE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u206f\\ufff9-\\ufffb\\ud800-\\udfff]"
)


def cut_end(text: str, limit: int) -> str:
    """Keep the first ``limit`` characters."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters more)"


def cut_start(text: str, limit: int) -> str:
    """Keep the last ``limit`` characters: those of a traceback say where it happened."""
    return text if len(text) <= limit else f"({len(text) - limit} characters before) …{text[-limit:]}"


def clean(text: str) -> str:
    """Write lone surrogates as escapes: they have no UTF-8 form, and strict JSON does not hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def ascii_only(text: str) -> str:
    """Write all characters but ASCII as escapes."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


def name_of(number: float) -> str:
    """Name a number that JSON does not hold."""
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def harmless(text: str) -> str:
    """Text that came from an app or a caller, so that a terminal only shows it. Newlines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same, in one line, so that no part of it can pass for a line of another origin."""
    return harmless(text).replace("\n", " ").replace("\t", " ")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

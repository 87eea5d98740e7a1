"""Functions that cut texts, and that escape characters that a terminal or JSON cannot show safely."""

from __future__ import annotations

import math
import re

__all__ = ["ascii_only", "clean", "cut_end", "cut_start", "harmless", "name_of", "one_line"]

# C0 (except tab and newline), DEL and C1 move the cursor, change colours and rename the window. Some viewers end
# a line at U+2028, U+2029 and U+0085. Bidi controls change the order in which characters are shown. Lone
# surrogates have no UTF-8 form. U+FFF9 to U+FFFB hide text, and U+206A to U+206F are deprecated controls.
_UNSAFE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u206f\\ufff9-\\ufffb\\ud800-\\udfff]"
)


def cut_end(text: str, limit: int) -> str:
    """Return the first ``limit`` characters. A mark at the end names the number of missing characters."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters more)"


def cut_start(text: str, limit: int) -> str:
    """Return the last ``limit`` characters, after a mark. The end of a traceback says where the error happened."""
    return text if len(text) <= limit else f"({len(text) - limit} characters before) …{text[-limit:]}"


def clean(text: str) -> str:
    """Escape lone surrogates, because they have no UTF-8 form and strict JSON does not allow them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def ascii_only(text: str) -> str:
    """Escape all characters except ASCII."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


def name_of(number: float) -> str:
    """Return the name of a number that JSON cannot hold: NaN or an infinity."""
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def harmless(text: str) -> str:
    """Escape the control characters in a text from an app or a caller, so that a terminal only shows the text.

    Newlines and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return :func:`harmless` text in one line, so that no part of the text can look like a line from elsewhere."""
    return harmless(text).replace("\n", " ").replace("\t", " ")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

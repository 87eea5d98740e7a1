"""Conversion of settings' values from text or TOML, and to text or TOML."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import OptionError
from .fields import OFF, Setting

__all__ = ["BLANKS", "HIDDEN", "as_text", "as_toml", "convert", "described", "redacted"]

HIDDEN = "***"
BLANKS = string.whitespace
"""Characters that are stripped around a value, since here-documents and Kubernetes secrets can end in a line feed."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def convert(setting: Setting, raw: Any, *, is_text: bool, subject: str) -> Any:
    """Convert a raw value to the type of its setting, without blanks around it.

    Raises ``OptionError`` for a value of the wrong type, and for a text with control characters. Other checks, such as
    ranges, come later.
    """
    if isinstance(raw, str):
        raw = raw.strip(BLANKS)
    if setting.none and raw in (setting.none, OFF, "none"):
        return None
    try:
        if isinstance(raw, str):
            raw.encode()  # bytes that are not UTF-8 become lone surrogates, which can be neither shown nor sent
        value = msgspec.convert(_parts(raw) if is_text and setting.is_list else raw, setting.kind, strict=not is_text)
    except (msgspec.ValidationError, UnicodeEncodeError):
        shown = HIDDEN if setting.is_secret else repr(raw)
        raise OptionError(f"{subject} is {shown}, which is {_not(setting)}") from None
    if isinstance(value, str) and _CONTROL.search(value):
        raise OptionError(f"{subject} contains a line break or another control character. Remove it")
    return value


def described(setting: Setting) -> str:
    """Return the possible values of a setting, for people: ``a number or off``."""
    names = [*setting.choices] or [_NAMES.get(setting.kind, "a list")]
    *all_but_last, last = [*names, setting.none] if setting.none else names
    return f"{', '.join(all_but_last)} or {last}" if all_but_last else last


def as_text(setting: Setting, value: Any) -> str:
    """Return a value as text for a flag or an environment variable. A secret is hidden."""
    if value is None:
        return str(setting.none)
    if setting.is_secret:
        return HIDDEN
    if isinstance(value, bool):
        return str(value).lower()
    if setting.is_list:
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def as_toml(setting: Setting, value: Any) -> str:
    """Return a value in the form of a TOML file. A secret is not hidden."""
    if value is None:
        return _quoted(str(setting.none))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (tuple, list, frozenset)):
        return f"[{', '.join(as_toml(setting, one) for one in value)}]"
    return repr(value)


def redacted(message: str, values: Mapping[str, Any], settings: Mapping[str, Setting]) -> str:
    """Return a message without the secrets among these values."""
    for name, value in values.items():
        if settings[name].is_secret and isinstance(value, str) and value:
            # A short secret may be a part of other words, so only its quoted form is replaced.
            message = message.replace(value if len(value) >= 8 else repr(value), HIDDEN)
    return message


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _not(setting: Setting) -> str:
    if setting.choices:
        return f"none of: {', '.join(setting.choices)}"
    return f"not {described(setting)}"


def _quoted(text: str) -> str:
    # A JSON string is also a TOML string, except that TOML does not allow DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

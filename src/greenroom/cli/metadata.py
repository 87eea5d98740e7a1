"""Metadata of a job, from the command line, a file or the standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from ..errors import OptionError

__all__ = ["read_metadata"]


def read_metadata(text: str | None, file: str | None) -> Any:
    """Return the metadata unchanged, after a check that it is JSON. Numbers stay as they are written.

    Raises ``OptionError`` for metadata that is not JSON, and for a file that cannot be read.
    """
    if text is not None and file is not None:
        raise OptionError("--metadata and --metadata-file exclude each other")
    if text is None and file is None:
        return None
    origin = "--metadata" if file is None else "the standard input" if file == "-" else file
    try:
        raw = _read(file) if file is not None else str(text).encode("utf-8", "strict")
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError) as error:
        hint = f". A JSON string needs quotes: {json.dumps(text)!r}" if text is not None else ""
        raise OptionError(f"{origin} is not JSON: {error}{hint}") from None
    except RecursionError:
        raise OptionError(f"{origin} is nested too deeply") from None
    return msgspec.Raw(raw)


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise OptionError(f"the metadata file {file} cannot be read: {error.strerror}") from None

"""Texts that fit where they go: what is cut is marked, and what JSON does not hold has a name."""

from __future__ import annotations

import math

__all__ = ["ascii_only", "clean", "cut_end", "cut_start", "name_of"]


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

"""Settings from a TOML file: one table for each group."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import OptionError
from .fields import all_settings, groups
from .origins import Given, Layer, Origin, did_you_mean
from .values import BLANKS, convert

__all__ = ["FILE_NAME", "find_file", "from_file", "lines_of_keys"]

FILE_NAME = "greenroom.toml"

_Path = tuple[str, ...]


def find_file(named: str | None) -> Path | None:
    """Return the named file, or else the file in the current folder, if there is one."""
    if named and (path := named.strip(BLANKS)):
        return Path(path)
    return Path(FILE_NAME) if Path(FILE_NAME).is_file() else None


def from_file(path: Path) -> Layer:
    """Return the settings in a file.

    Raises ``OptionError`` for a wrong entry, with its line, and for a file that cannot be read.
    """
    text = _read(path)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{path}: not TOML: {error}") from None
    lines = lines_of_keys(text)
    found = {}
    for key, raw in _entries(tables):
        origin = Origin("file", str(path), lines.get(key))
        _check_key(key, origin)
        subject = f"{origin}: {key[-1]}"
        found[key[-1]] = Given(convert(all_settings()[key[-1]], raw, is_text=False, subject=subject), origin)
    return found


def lines_of_keys(text: str) -> dict[_Path, int]:
    """Return the line in which each table and key of a TOML text begins. Lines count from 1.

    tomllib reports no lines. But tomllib accepts a piece of the text only if the piece is complete.
    """
    found: dict[_Path, int] = {}
    table: _Path = ()
    piece, start = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        piece += line + "\n"
        try:
            parsed = tomllib.loads(piece)
        except tomllib.TOMLDecodeError:
            continue  # the piece goes on in the next line
        paths = list(_paths(parsed))
        if piece.lstrip().startswith("["):
            table = paths[-1]
            found.setdefault(table, start)
        else:
            found.update({(*table, *path): start for path in paths})
        piece, start = "", number + 1
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise OptionError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise OptionError(f"the settings file {path} is not UTF-8: {error.reason} at byte {error.start}") from None


def _entries(tables: dict[str, Any]) -> Iterator[tuple[_Path, Any]]:
    """Yield path and value of each key in the table of a group. Yield all other top-level keys as they are."""
    for group, table in tables.items():
        if group in groups() and isinstance(table, dict):
            yield from (((group, name), raw) for name, raw in table.items())
        else:
            yield (group,), table


def _check_key(key: _Path, origin: Origin) -> None:
    name, settings = key[-1], all_settings()
    if len(key) == 2 and name in settings and settings[name].group == key[0]:
        return
    if name in settings:
        raise OptionError(f"{origin}: {name} belongs under [{settings[name].group}]")
    if name in groups():
        raise OptionError(f"{origin}: {name} is a group of settings; write it as a table [{name}]")
    near = did_you_mean(name, [*settings, *groups()] if len(key) == 1 else settings)
    if near is None:
        hint = f"the groups are {', '.join(groups())}; `greenroom config` lists their settings"
    else:
        hint = f"did you mean [{near}]?" if near in groups() else f"did you mean {near} under [{settings[near].group}]?"
    raise OptionError(f"{origin}: there is no setting {'.'.join(key)}; {hint}")


def _paths(table: dict[str, Any], above: _Path = ()) -> Iterator[_Path]:
    for name, value in table.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from _paths(value, (*above, name))

"""Each function, class, method and constant of the package is used by the package, or is the user's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import greenroom

SOURCE = Path(__file__).resolve().parent.parent / "src" / "greenroom"
USERS = ("App", "ExitReport", "JobContext", "JobHandle", "JobProcess", "JobRequest", "ProcessPool", "Reservation")
"""Classes whose methods a user calls."""
CALLED_BY_OTHERS = {
    "LIVEKIT",  # an entry point
    "_fields_",  # ctypes
    "_pack_",  # ctypes
    "buffer_updated",  # asyncio
    "critical",  # structlog
    "eof_received",  # asyncio
    "fatal",  # structlog
    "get_buffer",  # asyncio
    "launch_job",  # livekit-agents
    "path_stats",  # importlib
    "set_target_idle_processes",  # livekit-agents
    "target_idle_processes",  # livekit-agents
}
CHOICES = {"DEV"}  # read by its value
PRIVATE_OF_OTHERS = {"_fields_", "_pack_", "_start_job"}  # ctypes, livekit-agents


def trees() -> Iterator[ast.Module]:
    return (ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py")))


def uses(tree: ast.Module) -> Iterator[str]:
    """Find each name that is read: not where it is defined, imported or exported."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()):
                yield name


def definitions(body: list[ast.stmt], *, is_users: bool = False) -> Iterator[str]:
    """Find the names of functions, classes, methods and constants. A user calls the methods of some classes."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if not is_users:
                yield name
            case ast.ClassDef(name=name, body=inner):
                yield name
                yield from definitions(inner, is_users=name in USERS)
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_everything_is_used() -> None:
    used = {name for tree in trees() for name in uses(tree)}
    defined = {name for tree in trees() for name in definitions(tree.body) if not name.startswith("__")}
    assert len(defined) > 2000
    known = CALLED_BY_OTHERS | CHOICES | set(greenroom.__all__)
    assert sorted(name for name in defined - known if name not in used) == []
    assert sorted(name for name in CALLED_BY_OTHERS | CHOICES if name in used or name not in defined) == []


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_what_is_private_is_used_in_its_module(path: Path) -> None:
    tree = ast.parse(path.read_text())
    private = {name for name in definitions(tree.body) if re.match("_[^_]", name)}
    assert private - PRIVATE_OF_OTHERS - set(uses(tree)) == set()

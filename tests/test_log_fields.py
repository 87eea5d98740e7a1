"""Each log line of the supervisor carries an event's name, so that a machine can read it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "greenroom"
FOLDERS = ("cli", "doctor", "pool", "server", "settings", "system")
METHODS = {f"_logger.{name}" for name in ("debug", "info", "warning", "error", "exception", "critical", "log")}
FOUND = [path for folder in FOLDERS for path in (SOURCE / folder).rglob("*.py")]
MODULES = sorted(path for path in FOUND if "_logger." in path.read_text())

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """Find the calls that log. Lines of sessions, which ``_app_logger`` logs, are no events."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in METHODS:
            yield call


def is_log_fields(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log_fields"


def has_fields(call: ast.Call, function: Function) -> bool:
    """Return whether ``extra`` is a call of ``log_fields``, or a name that the function binds to nothing else."""
    extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    if not isinstance(extra, ast.Name):
        return is_log_fields(extra)
    bound = [
        node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == extra.id
    ]
    return bound != [] and all(map(is_log_fields, bound))


def test_there_is_something_to_look_at() -> None:
    assert len([call for path in MODULES for call in calls(ast.parse(path.read_text()))]) > 80


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_line_of_the_supervisor_has_the_fields_of_an_event(path: Path) -> None:
    tree = ast.parse(path.read_text())
    bare = [
        f"line {call.lineno}: {ast.unparse(call)}"
        for function in functions(tree)
        for call in calls(function)
        if not has_fields(call, function)
    ]
    assert bare == []


@pytest.mark.parametrize("path", sorted((SOURCE / "pool" / "core").glob("*.py")), ids=lambda path: path.name)
def test_a_line_of_the_core_has_the_fields_of_an_event(path: Path) -> None:
    for function in functions(ast.parse(path.read_text())):
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "Log":
                assert len(call.args) == 3
                assert "'event': " in ast.unparse(function)

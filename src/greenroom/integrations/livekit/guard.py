"""What a script does under ``if __name__ == "__main__":`` to start LiveKit's worker, without starting it.

Older apps build their ``WorkerOptions`` in there and nowhere else. So that block is run as it would be
by Python, in the module's own namespace, and up to the point where it calls ``cli.run_app``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from livekit.agents import cli

__all__ = ["server_from_guard"]


class _Captured(BaseException):
    """Not an ``Exception``: no handler of the script's is to see it."""


def server_from_guard(module: ModuleType) -> Any:
    """What the script's guard hands to ``cli.run_app``; ``None`` if it does not call it."""
    path = getattr(module, "__file__", None)
    if path is None or not path.endswith(".py"):
        return None
    tree = ast.parse(Path(path).read_bytes(), path)
    body = [statement for node in tree.body if _is_guard(node) for statement in node.body]  # type: ignore[attr-defined]
    if not body or not _mentions_run_app(tree):
        return None
    code = compile(ast.Module(body, type_ignores=[]), path, "exec")
    captured: list[Any] = []
    with _captured_run_app(module, captured):
        try:
            exec(code, vars(module))
        except _Captured:
            return captured[0]
    return captured[0] if captured else None


@contextmanager
def _captured_run_app(module: ModuleType, captured: list[Any]) -> Iterator[None]:
    """Wherever the script may find it: in LiveKit's module, or among its own names."""
    original = cli.run_app

    def capture(server: Any, *args: object, **kwargs: object) -> NoReturn:
        captured.append(server)
        raise _Captured

    own_names = [name for name, value in vars(module).items() if value is original]
    cli.run_app = capture
    vars(module).update(dict.fromkeys(own_names, capture))
    try:
        yield
    finally:
        cli.run_app = original
        vars(module).update(dict.fromkeys(own_names, original))


def _is_guard(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.Compare):
        return False
    test = node.test
    sides = [test.left, *test.comparators]
    names = {side.id for side in sides if isinstance(side, ast.Name)}
    values = {side.value for side in sides if isinstance(side, ast.Constant)}
    return names == {"__name__"} and values == {"__main__"} and isinstance(test.ops[0], ast.Eq)


def _mentions_run_app(tree: ast.Module) -> bool:
    """Else the guard starts something of its own, which would not come back."""
    return any(
        getattr(node, "attr", None) == "run_app" or getattr(node, "id", None) == "run_app" for node in ast.walk(tree)
    )

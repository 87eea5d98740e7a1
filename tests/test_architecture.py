"""Pages of docs/ that name files and functions: the names exist, the map shows the tree, the tables are the code's."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from scripts import package_contents

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "greenroom"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PAGES = {"architecture.md": PAGE, "procpool": (ROOT / "docs" / "from-livekit-procpool.md").read_text()}
NAME = re.compile(r"`([a-z_]+(?:/\w+)+\.\w+|options\.py)(?::([\w.]+))?`")
NAMED = sorted({found for page in PAGES.values() for found in NAME.findall(page) if not found[0].endswith(".ts")})
FOLDERS_NAMED = sorted(set(re.findall(r"`((?:[a-z_]+/)+)`", PAGE)))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_the_page_names_something(page: str) -> None:
    assert len([name for _, name in NAME.findall(page) if name]) >= 15


def test_each_test_that_is_named_is_a_test() -> None:
    tests = [name for file, name in NAMED if file.startswith("tests/") and name]
    assert len(tests) >= 10
    assert [name for name in tests if not name.startswith("test_")] == []


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_the_page_names_is_there(file: str, name: str) -> None:
    path = next(place / file for place in (SOURCE, ROOT) if (place / file).is_file())
    tree: ast.AST = ast.parse(path.read_text())
    for part in name.split(".") if name else []:
        tree = next(node for node in ast.iter_child_nodes(tree) if _name_of(node) == part)


def _name_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return None


def test_the_folders_that_the_page_names_are_there() -> None:
    assert len(FOLDERS_NAMED) > 20
    places = [ROOT, SOURCE, SOURCE.parent]
    assert [name for name in FOLDERS_NAMED if not any((place / name).is_dir() for place in places)] == []


# --- the map -------------------------------------------------------------------------------------

ROOT_ROW = "greenroom/"
ROW = re.compile(r"^\| `([a-z_/]+/)` \| ([^|]+) \|([^|]*)\|$", re.M)
MAP = {folder: (job, set(re.findall(r"`([a-z_/]+/)`", imports))) for folder, job, imports in ROW.findall(PAGE)}


def folders() -> set[str]:
    """Return the folders of the package that hold a file, as the map names them."""
    files = [path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {_folder(path.relative_to(SOURCE).parent.parts) for path in files}


def _folder(parts: tuple[str, ...]) -> str:
    return "/".join(parts) + "/" if parts else ROOT_ROW


def imports(path: Path) -> Iterator[str]:
    """Yield the folders whose modules a module imports, its own included."""
    package = path.relative_to(SOURCE).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            begin = package[: len(package) - node.level + 1] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            if not node.level and module[0] != "greenroom":
                continue
            parts = begin + module if node.level else module[1:]
            # `from ..pool import core` imports a folder, and `from ..pool import JobHandle` the one above.
            yield from (_nearest((*parts, alias.name)) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (_nearest(tuple(name[1:])) for name in names if name[0] == "greenroom")


def _nearest(parts: tuple[str, ...]) -> str:
    while parts and not SOURCE.joinpath(*parts).is_dir():
        parts = parts[:-1]
    return _folder(parts)


@cache
def arrows() -> dict[str, set[str]]:
    """Return the folders that each folder imports, without itself and the root."""
    found = defaultdict[str, set[str]](set)
    for path in SOURCE.rglob("*.py"):
        folder = _folder(path.relative_to(SOURCE).parent.parts)
        found[folder] |= set(imports(path)) - {folder, ROOT_ROW}
    return found


def test_the_map_shows_each_folder() -> None:
    assert sorted(folders() - MAP.keys()) == [], "folders without a line on the map"
    assert sorted(MAP.keys() - folders()) == [], "lines on the map without a folder"
    assert [folder for folder, (job, _) in MAP.items() if len(job.split()) < 3] == []


@pytest.mark.parametrize("folder", sorted(MAP))
def test_the_map_shows_each_arrow(folder: str) -> None:
    real, shown = arrows()[folder], MAP[folder][1]
    assert shown == real, f"the third column is: {', '.join(f'`{name}`' for name in sorted(real))}"


def test_the_arrows_are_found_where_they_hide() -> None:
    found = arrows()
    assert "cli/" in found[ROOT_ROW], "from the package itself, in __main__"
    assert "server/" in found["cli/"], "inside a function"
    assert "pool/" in found["pool/core/"], "one level up"


def test_the_map_of_the_repository_shows_each_folder() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    shown = re.findall(r"^\| `([\w.]+/)` \| ", page, re.M)
    names = package_contents.files(ROOT)
    assert sorted(shown) == sorted({f"{name.partition('/')[0]}/" for name in names if "/" in name})


# --- the tables ----------------------------------------------------------------------------------


def test_the_tables_are_drawn_as_they_are() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "pool_tables.py", "--check"], check=True)


WITHIN = {
    "app_facts",
    "backoff",
    "clean_text",
    "errors",
    "exit_reasons",
    "exit_report",
    "job_labels",
    "options",
    "signal_names",
}
OUTSIDE = {
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "re",
}


@pytest.mark.parametrize("path", sorted((SOURCE / "pool" / "core").glob("*.py")), ids=lambda path: path.name)
def test_the_core_imports_nothing_of_the_world(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= OUTSIDE
        elif isinstance(node, ast.ImportFrom):
            name = (node.module or "").split(".")[0]
            assert name in {0: OUTSIDE | {"typing"}, 2: {"events"}, 3: WITHIN}.get(node.level, {name})


# --- LiveKit's source ----------------------------------------------------------------------------

LIVEKIT = SOURCE / "integrations" / "livekit"


@pytest.mark.parametrize("path", sorted((LIVEKIT / "job_source").glob("*.py")), ids=lambda path: path.name)
def test_livekits_source_sees_the_worker_through_one_interface(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Import) or "greenroom" not in {each.name.split(".")[0] for each in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 4:  # from greenroom itself
            assert (node.module or "").split(".")[0] not in ("pool", "server", "cli", "zygote")
            assert node.module is not None or [each.name for each in node.names] == ["__version__"]
        elif isinstance(node, ast.ImportFrom) and node.level == 3:
            pytest.fail(f"line {node.lineno} imports another integration")
        else:
            assert not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("greenroom")

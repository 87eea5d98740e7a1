"""docs/first-five-minutes.md does what it promises, and a page that promises something else is found out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts import first_minutes

PAGE = first_minutes.read()


@pytest.fixture
def follow(tmp_path: Path) -> Callable[..., None]:
    """Follow the page in an empty folder, with changes to it."""
    if shutil.which("curl") is None:
        assert "CI" not in os.environ, "curl was not found. Install it."
        pytest.skip("curl was not found")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def followed(**changes: Any) -> None:
        first_minutes.follow(replace(PAGE, **changes), tmp_path, {**os.environ, "PATH": path}, install=False)

    return followed


def test_the_page_has_what_a_reader_does() -> None:
    assert PAGE.install[-1] == "pip install greenroom"
    assert PAGE.serve == "greenroom dev agent.py"
    assert len(PAGE.requests) == 2
    assert PAGE.promises == {"outcome": "succeeded", "reason": "completed", "result": "Hello, Ada"}


def test_each_command_of_the_page_works(follow: Callable[..., None]) -> None:
    follow()


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"promises": {**PAGE.promises, "result": "Hello, Bob"}}, "`result` is 'Hello, Ada'"),
        ({"requests": [PAGE.requests[0], "curl --no-such-option"]}, "a command fails"),
        ({"requests": [PAGE.requests[1], PAGE.requests[1]]}, "no `pid`"),
        ({"source": "import greenroom\n\napp = greenroom.App(\n"}, "the worker is not ready"),
        ({"serve": "greenroom dev --no-such-option agent.py"}, "the worker is not ready"),
    ],
    ids=["promise", "command", "request", "app", "serve"],
)
def test_what_does_not_work_is_found(follow: Callable[..., None], changes: dict[str, Any], wanted: str) -> None:
    with pytest.raises(first_minutes.PageError, match=wanted):
        follow(**changes)


def test_a_page_without_its_parts_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(first_minutes.PAGE.read_text().replace("## Serve it", "## Run it"))
    with pytest.raises(first_minutes.PageError, match="Serve it"):
        first_minutes.read(page)


@pytest.mark.more
def test_the_install_is_run_as_it_stands(tmp_path: Path) -> None:
    """Pip has no packages here: so the page's `pip install` fails, in the environment that the page makes."""
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    with pytest.raises(first_minutes.PageError, match="No matching distribution found for greenroom"):
        first_minutes.follow(PAGE, tmp_path, environment, install=True)
    python = tmp_path / ".venv" / "bin" / "python"
    assert subprocess.run([python, "-c", "import pip"], check=False).returncode == 0

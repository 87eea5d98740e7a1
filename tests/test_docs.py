"""What the documentation says is so: its examples run, and its tables leave nothing out."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from models.tiny_models import make_model, need
from support import DEADLINE

from greenroom import ProcessPool, Reject
from greenroom.pool.events import Event
from greenroom.report import Reason

DOCS = Path(__file__).resolve().parent.parent / "docs"
EXAMPLE = re.compile(r"^<!-- serve: (\{[^\n]*\}) -->\n```python\n(.*?)^```", re.M | re.S)


def examples() -> list[tuple[str, dict[str, Any], str]]:
    return [
        (page.name, json.loads(wanted), source)
        for page in sorted(DOCS.glob("*.md"))
        for wanted, source in EXAMPLE.findall(page.read_text())
    ]


@pytest.mark.parametrize(("page", "wanted", "source"), examples())
async def test_an_example_runs(page: str, wanted: dict[str, Any], source: str, tmp_path: Path) -> None:
    need(*wanted.get("needs", []), nightly=wanted.get("nightly", False))
    app = tmp_path / "agent.py"
    app.write_text(source)
    if "make" in wanted:
        make_model(tmp_path / "model")
    async with ProcessPool(f"{app}:app", num_idle_processes=1, prewarm_timeout=DEADLINE) as pool:
        if "rejected" in wanted:
            reservation = await pool.reserve(wanted["rejected"], timeout=20)
            assert isinstance(await reservation.ask(), Reject)
        handle = await pool.launch(wanted["metadata"], timeout=DEADLINE)
        if "cancel" in wanted:
            handle.cancel(str(wanted["cancel"]))
        report = await handle.wait()
        assert report.error is None, (page, report)
        if "cancel" not in wanted:  # a job that was told to end has no result to give
            assert report.result == wanted["result"], (page, report)


SCRIPT = re.compile(r"^<!-- run: ([^\n]*) -->\n```python\n(.*?)^```", re.M | re.S)
AGENT = """
import greenroom

app = greenroom.App()

@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""


@pytest.mark.parametrize("page", sorted(page.name for page in DOCS.glob("*.md") if "<!-- run" in page.read_text()))
async def test_a_script_runs_beside_an_agent(page: str, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    found = SCRIPT.findall((DOCS / page).read_text())
    assert found
    for said, source in found:
        script = tmp_path / "script.py"
        script.write_text(source)
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, complaints = await process.communicate()
        assert process.returncode == 0, complaints.decode()
        assert output.decode().strip() == said


def test_every_exit_reason_is_explained() -> None:
    page = (DOCS / "exit-reasons.md").read_text()
    assert [reason for reason in get_args(Reason) if f"| `{reason}` |" not in page] == []


def test_every_metric_is_explained(make_app: Callable[[str], str]) -> None:
    source = (DOCS.parent / "src/greenroom/server/metrics.py").read_text()
    page = (DOCS / "metrics.md").read_text()
    names = set(re.findall(r'"(greenroom_[a-z_]+)"', source))
    assert len(names) > 15
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


def test_every_event_of_the_log_is_explained() -> None:
    source = "".join(path.read_text() for path in (DOCS.parent / "src/greenroom").rglob("*.py"))
    page = (DOCS / "logs-and-traces.md").read_text()
    names = set(re.findall(r'log_fields\(\s*"([a-z_]+)"', source))
    assert len(names) > 20
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_every_event_and_error_of_the_api_is_explained() -> None:
    page = (DOCS / "http-api.md").read_text()
    found = {kind.__name__ for kind in Event.__subclasses__()}
    for path in (DOCS.parent / "src/greenroom/server").rglob("*.py"):
        found |= set(re.findall(r'ApiError\(\s*[a-z0-9.]+,\s*"([a-z_]+)"', path.read_text()))
    assert len(found) > 30
    assert [name for name in sorted(found) if f"`{name}`" not in page] == []

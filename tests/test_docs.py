"""What the documentation says is so: its examples run, and its tables leave nothing out."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from models.tiny_models import make_model, need
from server.admissions import boundless_admission
from support import DEADLINE

import greenroom
from greenroom import ExitReport, ProcessPool, Reject, Timings
from greenroom.cli.main import command_line
from greenroom.errors import RejectionReason
from greenroom.exit_reasons import Reason
from greenroom.pool import events
from greenroom.pool.events import Event
from greenroom.server.history.history import History
from greenroom.server.job_registry import JobRegistry
from greenroom.server.slices import Slices
from greenroom.server.telemetry.metrics import Metrics
from greenroom.server.telemetry.overview import Overview
from greenroom.server.telemetry.snapshot import Snapshot

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


def test_the_reasons_to_turn_a_session_down_are_explained_and_no_others() -> None:
    page = (DOCS / "exit-reasons.md").read_text().partition("\n## Rejected jobs\n")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert sorted(explained) == sorted(get_args(RejectionReason))
    # mypy rejects code that gives another reason. This finds a reason that no code gives.
    modules = (DOCS.parent / "src/greenroom").rglob("*.py")
    source = "".join(path.read_text() for path in modules if path.name != "errors.py")
    assert [reason for reason in explained if f'"{reason}"' not in source] == []


def test_every_metric_is_explained(make_app: Callable[[str], str]) -> None:
    modules = (DOCS.parent / "src/greenroom/server/telemetry").glob("*.py")
    source = "".join(path.read_text() for path in modules)
    page = (DOCS / "metrics.md").read_text()
    names = set(re.findall(r'"(greenroom_[a-z_]+)"', source))
    assert len(names) > 15
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


def test_every_event_of_the_log_is_explained() -> None:
    source = "".join(path.read_text() for path in (DOCS.parent / "src/greenroom").rglob("*.py"))
    page = (DOCS / "logs-and-traces.md").read_text()
    found = r'log_fields\(\s*"([a-z_]+)"|"event": "([a-z_]+)"|ThrottledWarning\([^,]+, "([a-z_]+)"'
    names = {name for match in re.findall(found, source) for name in match if name}
    assert len(names) > 80
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
    rows = re.findall(r"^\| (`[a-z_`, ]+) \| [a-z,; ]*(?:debug|info|warning|error)[a-z,; ]* \|", page, re.M)
    explained = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert [name for name in sorted(explained) if f'"{name}"' not in source] == []
    assert names <= explained


def test_every_event_and_error_of_the_api_is_explained() -> None:
    page = (DOCS / "http-api.md").read_text()
    found = {kind.__name__ for kind in Event.__subclasses__()}
    for path in (DOCS.parent / "src/greenroom/server").rglob("*.py"):
        found |= set(re.findall(r'ApiError\(\s*[a-z0-9.]+,\s*"([a-z_]+)"', path.read_text()))
    assert len(found) > 30
    assert [name for name in sorted(found) if f"`{name}`" not in page] == []


# --- the Python API ------------------------------------------------------------------------------


def section(page: str, heading: str) -> str:
    """Return the text of a page below a heading, up to the next heading that is not below it."""
    level = heading.partition(" ")[0]
    match = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", page, re.M | re.S)
    assert match is not None, f"there is no heading {heading!r}"
    return match[1]


def rows(text: str) -> Iterator[dict[str, str]]:
    """Yield the rows of all tables in a text, by the names of their columns."""
    columns: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if columns is None:
            columns = cells
        elif set(line) - set("|- "):
            yield dict(zip(columns, cells, strict=True))


def fields_in_reference(name: str) -> dict[str, dict[str, str]]:
    page = (DOCS / "python-api.md").read_text()
    return {row["field"].strip("`"): row for row in rows(section(page, f"### `{name}`"))}


def test_the_api_reference_is_made_from_the_docstrings() -> None:
    subprocess.run([sys.executable, DOCS.parent / "scripts" / "api_doc.py", "--check"], check=True)


@pytest.mark.parametrize("name", greenroom.__all__)
def test_every_public_name_and_its_members_are_in_the_api_reference(name: str) -> None:
    page = (DOCS / "python-api.md").read_text()
    text = section(page, f"### `{name}`") + section(page, "## For integrations")
    kind = getattr(greenroom, name)
    members = [one for one, value in vars(kind).items() if inspect.isroutine(value) or isinstance(value, property)]
    members += [one.name for one in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    public = [one for one in members if not one.startswith("_")]
    assert [one for one in public if not re.search(rf"`({name}\.)?{one}`", text)] == []


def test_every_field_of_a_report_is_in_the_api_reference_with_its_unit() -> None:
    told = fields_in_reference("ExitReport")
    assert set(told) == {one.name for one in dataclasses.fields(ExitReport)} | {"result", "result_json"}
    units = {name: row["unit"] for name, row in told.items() if row["unit"]}
    assert units == {
        "peak_memory_mb": "MiB",
        "cpu_seconds": "s",
        "log_records_dropped": "lines and records",
        "descendants_killed": "processes",
        "result_payload": "bytes",
    }
    times = fields_in_reference("Timings")
    assert {name: row["unit"] for name, row in times.items()} == {
        one.name: "s since 1970" for one in dataclasses.fields(Timings)
    }


@pytest.mark.parametrize("name", events.__all__)
def test_every_event_and_its_fields_are_in_the_api_reference(name: str) -> None:
    common = {one.name for one in dataclasses.fields(Event)} if name != "Event" else set()
    told = fields_in_reference(name)
    fields = [one for one in dataclasses.fields(getattr(events, name)) if one.name not in common]
    assert set(told) == {one.name for one in fields}
    assert [one.name for one in fields if "_seconds" in one.name and told[one.name]["unit"] != "s"] == []


def test_every_event_is_listed() -> None:
    assert {kind.__name__ for kind in Event.__subclasses__()} | {"Event"} == set(events.__all__)


# --- alerts, commands, figures -------------------------------------------------------------------

TITLE = re.compile(r"^# (.*)$", re.M)
LINK = re.compile(r"\[([A-Z][^\]`]*)\]\((?!http)([^)#\s]+/)?([\w-]+\.md)\)")
METRIC = re.compile(r"\b(greenroom_[a-z_]+)(?:\{([^}]*)\})?")


def exported(metrics: Metrics) -> set[str]:
    """Return the names of all series that a worker can export."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    families = list(metrics.registry.collect())
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}


async def test_the_metrics_of_alerts_are_exported(make_app: Callable[[str], str]) -> None:
    page = (DOCS / "metrics.md").read_text()
    documented = {
        name: set((labels or "").split(","))
        for name, labels in METRIC.findall(page.partition("## What to alert on")[0])
    }
    alerts = [row["expression"] for row in rows(section(page, "## What to alert on"))]
    assert len(alerts) >= 7
    async with ProcessPool(make_app(AGENT), num_idle_processes=1, prewarm_timeout=DEADLINE) as pool:
        admission, registry = boundless_admission(pool, JobRegistry(), 1.0), JobRegistry()
        history = History(pool, registry.live)
        snapshot = Snapshot(pool, history.metadata_of)
        overview = Overview(history, registry.live, Slices())
        metrics = Metrics(pool, snapshot, overview, admission, ["http", "livekit"])
        names = exported(metrics)
    assert {"greenroom_ready", "greenroom_turned_down_total", "greenroom_claim_seconds_bucket"} <= names
    for expression in alerts:
        used = METRIC.findall(expression)
        assert used or "up{" in expression  # Prometheus' own metric of a target
        for name, matchers in used:
            assert name in names, expression
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers))
            assert labels <= documented[name.removesuffix("_bucket")], expression


def test_there_is_one_table_of_alerts_and_other_pages_link_to_it() -> None:
    pages = {path.name: path.read_text() for path in DOCS.glob("*.md")}
    condition = re.compile(r"^\|.*greenroom_\w+.*[<>=] ?[0-9.]+` \|", re.M)
    assert [name for name, text in pages.items() if condition.search(text)] == ["metrics.md"]
    linking = ("index.md", "production.md", "troubleshooting.md")
    assert [name for name in linking if "metrics.md#what-to-alert-on" not in pages[name]] == []


def test_every_command_has_a_section() -> None:
    page, commands = (DOCS / "cli.md").read_text(), command_line()
    names = [command.name or getattr(command.callback, "__name__", "") for command in commands.registered_commands]
    for group in commands.registered_groups:
        assert group.typer_instance is not None
        names += [f"{group.name} {command.name}" for command in group.typer_instance.registered_commands]
    assert len(names) > 15
    headings = " and ".join(re.findall(r"^## (.*)$", page, re.M)).split(" and ")
    assert [name for name in names if name not in headings and name.partition(" ")[0] not in headings] == []


def test_the_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    measured = (DOCS / "benchmarks.md").read_text()
    readme = (DOCS.parent / "README.md").read_text()
    date = re.search(r"`make bench` on (\d{4}-\d\d-\d\d)", readme)
    assert date is not None
    assert f"Made by `python -m benchmarks` on {date[1]}" in measured
    found = [cell for row in rows(section(readme, "## What it gives")) for cell in list(row.values())[1:]]
    assert len(found) == 15
    table = [line for line in measured.splitlines() if line.startswith("| ")]
    assert [figure for figure in found if not any(re.search(rf"\b{re.escape(figure)}", line) for line in table)] == []


def test_the_site_has_a_search_box_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    subprocess.run(command, cwd=DOCS.parent, check=True)
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        assert 'role="search"' in text, page
        assert re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"'](?:https?:)?//[^>]*>", text) == [], page
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text())
    assert "python-api/#exitreport" in {entry["location"] for entry in index["docs"]}


def test_a_link_with_a_capital_letter_has_the_title_of_its_page() -> None:
    titles = {path.name: [found[1]] for path in DOCS.glob("*.md") if (found := TITLE.search(path.read_text()))}
    for title, name in re.findall(r"- ([^:\n]+): ([\w-]+\.md)", (DOCS.parent / "mkdocs.yml").read_text()):
        titles[name].append(title)
    wrong = []
    for path in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for text, _, target in LINK.findall(path.read_text()):
            known = titles.get(target, [])
            if known and not any(title.startswith(" ".join(text.split())) for title in known):
                wrong.append((path.name, text, target))
    assert wrong == []

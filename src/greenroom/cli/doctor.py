"""`greenroom doctor`: examine an app as it would run, on this machine."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..command_exit_codes import ExitCode
from ..errors import AppLoadError, OptionError
from ..settings import LogOptions
from .logs import logging_to_stderr
from .options import Layers, find_modules_from_here, with_settings
from .printing import Failure, echo, print_json, working
from .serve import AppArgument, ArgumentsArgument, prepare_environment
from .text import harmless

if TYPE_CHECKING:
    from ..doctor.examination import Examination
    from ..doctor.findings import Finding, Level

__all__ = ["register"]

_MARKS: dict[Level, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "note": ("·", "cyan"),
    "warning": ("!", "yellow"),
    "problem": ("✗", "bold red"),
}


def register(cli: typer.Typer) -> None:
    cli.command()(doctor)


@with_settings("start")
def doctor(
    app: AppArgument,
    layers: Layers,
    arguments: ArgumentsArgument = None,
    processes: Annotated[int, typer.Option(help="Number of idle processes to start and measure.", min=1)] = 4,
    session_mb: Annotated[
        float,
        typer.Option(help="Memory of a running session beyond that of an idle process.", metavar="MIB", min=0.0),
    ] = 0.0,
    session: Annotated[
        str | None,
        typer.Option(help="Run one real session with this metadata, and measure its memory.", metavar="JSON"),
    ] = None,
    deployment: Annotated[
        Path | None,
        typer.Option(help="systemd unit, Kubernetes manifest or Compose file whose grace period to check."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings and facts as one JSON object.")] = False,
) -> int:
    """Examine an app as it would run here: load, processes, memory, capacity, limits, kernel, grace periods.

    The app is loaded and prewarmed for real. A session is started only with --session.

    Exits with 0 if the app can be served; with 1 if there are problems; with 3 if the app does not load.
    """
    from ..doctor.examination import Questions, examine  # imported late, as the other commands do not need it

    resolved = layers.resolve("start")
    find_modules_from_here(app)
    prepare_environment(resolved)
    questions = Questions(
        app=app,
        resolved=resolved,
        processes=processes,
        session_mb=session_mb,
        deployment=deployment,
        with_session=session is not None,
        metadata=None if session is None else _parsed(session),
        arguments=tuple(arguments or ()),
    )
    try:
        with logging_to_stderr(LogOptions(log_level="error")), working(f"examining {app}"):
            found = asyncio.run(examine(questions))
    except AppLoadError as error:
        if as_json:
            print_json({"app": app, "error": str(error)})
        raise Failure(f"{app}: {error}", ExitCode.APP) from None
    _print(found, as_json=as_json)
    has_problem = any(finding.level == "problem" for finding in found.findings)
    return ExitCode.NEGATIVE if has_problem else ExitCode.OK


def _parsed(metadata: str) -> Any:
    try:
        return json.loads(metadata)
    except ValueError as error:
        raise OptionError(f"--session is not JSON: {error}") from None


def _print(found: Examination, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif sys.stdout.isatty():
        _show(found)
    else:
        echo("\n".join(_plain(found)))


def _show(found: Examination) -> None:
    from rich.console import Console  # imported late, as the other commands do not need it
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for finding in found.findings:
        mark, style = _MARKS[finding.level]
        text = Text(harmless(finding.found))
        if finding.todo:
            text.append(f"\n→ {harmless(finding.todo)}", style="dim" if finding.level == "note" else style)
        table.add_row(Text(mark, style), Text(finding.topic, "bold"), text)
    console = Console(highlight=False)
    console.print(Text(harmless(f"greenroom doctor {found.app}"), "bold"))
    console.print(table)
    console.print(Text(_summary(found.findings), "bold"))


def _plain(found: Examination) -> list[str]:
    """Return one line for each finding, and one for its remedy."""
    lines = []
    for finding in found.findings:
        lines.append(f"{finding.level:<8}{finding.topic:<10}{_indented(finding.found)}")
        if finding.todo:
            lines.append(f"{'':18}→ {_indented(finding.todo)}")
    return [*lines, _summary(found.findings)]


def _indented(text: str) -> str:
    """Indent all lines of a text after the first one, so that none can look like a finding of its own."""
    return text.replace("\n", "\n" + " " * 20)


def _summary(findings: tuple[Finding, ...]) -> str:
    counts = {level: sum(finding.level == level for finding in findings) for level in reversed(_MARKS)}
    shown = [f"{count} {level}{'s' if count > 1 else ''}" for level, count in counts.items() if count and level != "ok"]
    return f"{', '.join(shown) or 'no problems'}; {counts['ok']} ok"

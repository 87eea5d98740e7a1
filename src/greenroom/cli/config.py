"""`greenroom config`: the settings that hold, and the origin of each."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from ..app_facts import AppSettings
from ..command_exit_codes import ExitCode
from ..errors import AppLoadError
from ..settings import LogOptions
from ..settings.fields import Setting, all_settings, groups
from ..settings.layers import Resolved
from ..settings.values import HIDDEN, as_text, as_toml
from .logs import logging_to_stderr
from .options import Layers, find_modules_from_here, with_settings
from .printing import Failure, echo, working
from .serve import prepare_environment

__all__ = ["register"]


class Command(StrEnum):
    START = "start"
    DEV = "dev"


AppArgument = Annotated[
    str | None,
    typer.Argument(metavar="[APP]", help="agent.py, agent.py:app or package.module:app. An app can set settings."),
]
ForOption = Annotated[Command, typer.Option("--for", help="Command whose defaults apply.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
TomlOption = Annotated[bool, typer.Option("--toml", help="Print a TOML file for --config, without secrets.")]


def register(cli: typer.Typer) -> None:
    cli.command()(config)


@with_settings("start")
def config(
    layers: Layers,
    app: AppArgument = None,
    command: ForOption = Command.START,
    as_json: JsonOption = False,
    as_file: TomlOption = False,
) -> int:
    """Show the settings that hold here, and the origin of each: default, app, file, environment or flag.

    The app is loaded as a worker loads it. Without APP, the settings of an app are not shown.
    """
    if as_json and as_file:
        raise typer.BadParameter("--json and --toml exclude each other")
    resolved, complaints = layers.resolve(command.value), list[str]()
    if app is not None:
        resolved, complaints = _with_app(app, resolved)
    if as_json or as_file:
        typer.echo(_json(resolved) if as_json else _toml(resolved))  # both escape control characters
    else:
        echo(_table(resolved))
    for complaint in complaints:
        echo(complaint, err=True)
    return ExitCode.OK


def _with_app(app: str, resolved: Resolved) -> tuple[Resolved, list[str]]:
    """Return the settings including those of the app, and a sentence for each option of the app without effect."""
    find_modules_from_here(app)
    prepare_environment(resolved)
    try:
        with logging_to_stderr(LogOptions(log_level="error")), working(f"loading {app}"):
            app_settings, complaints = asyncio.run(_ask(app, resolved))
        return resolved.with_app(app_settings), complaints
    except AppLoadError as error:
        raise Failure(f"{app}: {error}", ExitCode.APP) from None


async def _ask(app: str, resolved: Resolved) -> tuple[AppSettings, list[str]]:
    from ..pool import Invocation, ProcessPool  # imported late: only `config --app` loads the app

    options = resolved.settings.pool
    # A zygote reports the app's settings when the app has loaded. With spawn, only a process reports them.
    idle = 1 if options.start_method == "spawn" else 0
    chosen = dataclasses.replace(options, num_idle_processes=idle, max_idle_processes=idle)
    pool = ProcessPool(app, invocation=Invocation((resolved.command,)), **dataclasses.asdict(chosen))
    async with pool:
        facts = pool.app_facts
        if facts is None:
            raise AppLoadError(pool.stats().breaker_cause or "no process became warm")
        manifest = pool.manifest.get("livekit") or {}
        return facts.own_settings, list(manifest.get("without_effect") or ())


def _table(resolved: Resolved) -> str:
    rows = [_row(setting, resolved) for setting in all_settings().values()]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:<{first}}  {value:<{second}}  {origin}" for name, value, origin in rows)


def _row(setting: Setting, resolved: Resolved) -> tuple[str, str, str]:
    value = as_text(setting, setting.of(resolved.settings))
    return f"{setting.group}.{setting.name}", value, str(resolved.origins[setting.name])


def _json(resolved: Resolved) -> str:
    shown = {name: _described(setting, resolved) for name, setting in all_settings().items()}
    file = str(resolved.file) if resolved.file else None
    return json.dumps({"command": resolved.command, "file": file, "settings": shown}, indent=2)


def _described(setting: Setting, resolved: Resolved) -> dict[str, Any]:
    origin = resolved.origins[setting.name]
    value = setting.of(resolved.settings)
    return {
        "group": setting.group,
        "value": HIDDEN if setting.is_secret and value is not None else value,
        "origin": {"kind": origin.kind, "name": origin.name, "line": origin.line},
        "variable": setting.variable,
        "flag": setting.flag,
    }


def _toml(resolved: Resolved) -> str:
    lines = [f"# The settings of `greenroom {resolved.command}`."]
    for group in groups():
        lines += ["", f"[{group}]"]
        lines += [_line(setting, resolved) for setting in all_settings().values() if setting.group == group]
    return "\n".join(lines)


def _line(setting: Setting, resolved: Resolved) -> str:
    value, origin = setting.of(resolved.settings), resolved.origins[setting.name]
    if setting.is_secret:
        return f"# {setting.name} = {as_text(setting, value)!r}  # {origin}"
    return f"{setting.name} = {as_toml(setting, value)}  # {origin}"

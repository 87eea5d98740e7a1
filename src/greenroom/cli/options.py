"""Options of a command for all settings, made from the types that declare the settings."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ..settings.environment import CONFIG_VARIABLE
from ..settings.fields import Setting, all_settings, groups
from ..settings.file import FILE_NAME, find_file
from ..settings.layers import Resolved, resolve
from ..settings.values import as_text
from ..system.working_folder import way_here

__all__ = ["Layers", "find_modules_from_here", "with_settings"]

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True, slots=True)
class Layers:
    """Settings from the command line, for :func:`resolve`."""

    flags: Mapping[str, Any]
    config: str | None

    def resolve(self, command: str) -> Resolved:
        """Return the settings from defaults of ``dev`` or ``start``, file, environment and command line."""
        return resolve(command, flags=self.flags, environ=os.environ, file=find_file(self.config))


def with_settings(defaults_of: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command one option for each setting, and ``--config``. The parameter ``layers`` gets their values.

    The help shows the defaults of the command ``defaults_of``.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        signature = inspect.signature(command, eval_str=True)
        kept = [parameter for name, parameter in signature.parameters.items() if name != "layers"]
        options = [_option(setting, setting.default(defaults_of)) for setting in all_settings().values()]
        context = inspect.Parameter("context", _KEYWORD, annotation=typer.Context)

        @functools.wraps(command)
        def run(context: typer.Context, config: str | None, **values: Any) -> int:
            given = {name: values.pop(name) for name in all_settings()}
            flags = {name: value for name, value in given.items() if _is_flag(context, name)}
            return command(**values, layers=Layers(flags, config))

        # typer reads the signature of the function.
        seen: Any = run
        seen.__signature__ = inspect.Signature([*kept, context, _config_option(), *options])
        seen.__annotations__ = {}
        del seen.__wrapped__
        return run

    return decorate


def _is_flag(context: typer.Context, name: str) -> bool:
    """Return true if the command line has the option.

    The parser also fills in environment variables, so that the help names them. But these are another layer.
    """
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _config_option() -> inspect.Parameter:
    option = typer.Option(
        "--config",
        help=f"File with settings. Default: {FILE_NAME} in the current folder, if it exists.",
        envvar=CONFIG_VARIABLE,
        metavar="FILE",
        show_default=False,
    )
    return inspect.Parameter("config", _KEYWORD, default=None, annotation=Annotated[str | None, option])


def _option(setting: Setting, default: Any) -> inspect.Parameter:
    option = typer.Option(
        setting.flag if setting.kind is not bool else f"{setting.flag}/--no-{setting.flag[2:]}",
        help=setting.doc.replace("``", ""),
        envvar=setting.variable,
        metavar=_metavar(setting) if setting.kind is not bool else None,
        rich_help_panel=(groups()[setting.group].__doc__ or "").split(".")[0].replace("``", ""),
        autocompletion=_completion(setting),
    )
    # The help shows this default. It has no other effect: without the option, the layers below decide.
    if setting.kind is bool:
        return inspect.Parameter(setting.name, _KEYWORD, default=default, annotation=Annotated[bool, option])
    shown = as_text(setting, default)
    return inspect.Parameter(setting.name, _KEYWORD, default=shown, annotation=Annotated[str, option])


def _metavar(setting: Setting) -> str:
    unit = "MIB" if setting.name.endswith("_mb") else "SECONDS"
    name = "|".join(setting.choices) or {int: "N", float: unit, str: "TEXT"}.get(setting.kind, "A,B,...")
    return f"{name}|{setting.none}" if setting.none else name


def _completion(setting: Setting) -> Callable[[str], list[str]] | None:
    def completed(incomplete: str) -> list[str]:
        return [choice for choice in setting.choices if choice.startswith(incomplete)]

    return completed if setting.choices else None


def find_modules_from_here(app: str) -> None:
    """Make modules of the current folder importable, as ``python -m`` does. An app in a file adds its own folder."""
    if not app.partition(":")[0].endswith(".py"):
        sys.path.insert(0, way_here())

"""`greenroom version`: the version of Greenroom."""

from __future__ import annotations

import typer

from .. import __version__
from ..command_exit_codes import ExitCode

__all__ = ["register"]


def register(cli: typer.Typer) -> None:
    cli.command()(version)


def version() -> int:
    """Show the version."""
    typer.echo(__version__)
    return ExitCode.OK

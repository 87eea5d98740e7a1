"""`greenroom bench`: launch latency, refill, burst and memory of an app, measured on this machine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..command_exit_codes import ExitCode
from ..errors import AppLoadError, OptionError, PrewarmError
from ..settings import LogOptions
from .logs import logging_to_stderr
from .options import Layers, find_modules_from_here, with_settings
from .printing import Failure, echo, print_json, working
from .serve import AppArgument, ArgumentsArgument

if TYPE_CHECKING:
    from ..doctor.bench_figures import BenchFigures, Burst, Spread
    from ..doctor.measurement import Plan

__all__ = ["register"]


def register(cli: typer.Typer) -> None:
    cli.command()(bench)


@with_settings("start")
def bench(
    app: AppArgument,
    layers: Layers,
    arguments: ArgumentsArgument = None,
    metadata: Annotated[str, typer.Option(help="Metadata of each session.", metavar="JSON")] = "null",
    seconds: Annotated[
        float, typer.Option("--seconds", help="Time for all measurements.", metavar="SECONDS", min=1.0)
    ] = 20.0,
    launches: Annotated[int, typer.Option(help="Launches to measure, if there is time.", min=1)] = 200,
    burst: Annotated[int, typer.Option(help="Sessions to start at the same time; 0 means no burst.", min=0)] = 20,
    hold: Annotated[
        float,
        typer.Option(help="Time until the memory of these sessions is read.", metavar="SECONDS", min=0.0),
    ] = 1.0,
    idle_max: Annotated[int, typer.Option(help="Most idle processes of which the memory is measured.", min=1)] = 16,
    plot: Annotated[Path | None, typer.Option(help="Draw a picture into this file (needs matplotlib).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> int:
    """Measure launch latency, refill, burst and memory of an app on this machine.

    The sessions are real: the app's entrypoint runs with the given metadata, and is cancelled after its measurement.

    Exits with 0; with 1 if processes or sessions failed; with 3 if the app does not load.
    """
    from ..doctor.measurement import Plan  # imported late, as the other commands do not need it
    from ..doctor.plots import check_can_draw, draw  # imported late, as the other commands do not need it

    if plot is not None:
        check_can_draw(plot)
    resolved = layers.resolve("start")
    pool = resolved.settings.pool
    find_modules_from_here(app)
    plan = Plan(
        app=app,
        options=pool,
        left_to_app=resolved.left_to_app,
        metadata=_parsed(metadata),
        seconds=seconds,
        launches=launches,
        burst=min(burst, pool.max_jobs),
        hold=hold,
        idle_max=idle_max,
        arguments=tuple(arguments or ()),
    )
    figures = _measured(plan, as_json=as_json)
    if as_json:
        print_json(figures)
    else:
        echo("\n".join(_lines(figures)))
    if plot is not None:
        draw(figures, plot)
    for complaint in figures.complaints:
        echo(f"greenroom bench: {complaint}", err=True)
    return ExitCode.NEGATIVE if figures.complaints else ExitCode.OK


def _measured(plan: Plan, *, as_json: bool) -> BenchFigures:
    from ..doctor.measurement import bench as measure  # imported late, as the other commands do not need it

    try:
        doing = f"measuring {plan.app} for up to {plan.seconds:g} s"
        with logging_to_stderr(LogOptions(log_level="error")), working(doing):
            return asyncio.run(measure(plan))
    except (AppLoadError, PrewarmError) as error:
        if as_json:
            print_json({"app": plan.app, "error": str(error)})
        code = ExitCode.APP if isinstance(error, AppLoadError) else ExitCode.NEGATIVE
        raise Failure(f"{plan.app}: {error}", code) from None


def _parsed(metadata: str) -> Any:
    try:
        return json.loads(metadata)
    except ValueError as error:
        raise OptionError(f"--metadata is not JSON: {error}") from None


def _lines(figures: BenchFigures) -> list[str]:
    from ..doctor.plots import histogram_lines, memory_lines  # imported late, as the other commands do not need it

    return [
        f"greenroom bench {figures.app}, {figures.seconds:.1f} s",
        "",
        f"launch, claim → acknowledged: {_spread_text(figures.launch)}",
        *histogram_lines(figures.histogram),
        *([f"{figures.cold} more launches found no idle process"] if figures.cold else []),
        "",
        f"refill, claim → idle again: {_spread_text(figures.refill)}",
        *_of_burst(figures.burst),
        *_of_session(figures),
        "",
        "memory of the zygote and its idle processes (PSS)",
        *memory_lines(figures.memory),
    ]


def _of_burst(burst: Burst | None) -> list[str]:
    if burst is None:
        return ["burst: not measured. There was no time for it, or --burst is 0"]
    refill = (
        "not idle again in time" if burst.refill_seconds is None else f"idle again after {burst.refill_seconds:.2f} s"
    )
    failed = f", {burst.failed} did not start" if burst.failed else ""
    return [
        f"burst of {burst.sessions} sessions on {burst.idle} idle processes: "
        f"{_spread_text(burst.start)}; {refill}{failed}"
    ]


def _of_session(figures: BenchFigures) -> list[str]:
    """Return lines about the memory of a session, with the option that passes it to `greenroom doctor`."""
    running = figures.burst.running_private_mb if figures.burst else None
    if running is None or not figures.memory:
        return []
    more = max(running - figures.memory[-1].private_mb, 0.0)
    return [
        "",
        f"private memory of a session after its start: {running:.1f} MiB (greenroom doctor --session-mb {more:.1f})",
    ]


def _spread_text(spread: Spread | None) -> str:
    if spread is None:
        return "not measured: there was no time for it"
    p50, p90, p99, most = (f"{value * 1000:.2f}" for value in (spread.p50, spread.p90, spread.p99, spread.most))
    return f"p50 {p50} ms, p90 {p90}, p99 {p99}, max {most} ({spread.count})"

"""Whole examination: read all facts in order, and judge them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..app_facts import unpacked
from ..options import PoolOptions
from ..pool import Invocation
from ..settings.layers import Resolved
from . import app_findings, machine_findings
from .capacity import Bound, bounds
from .facts import GraceFacts, KernelFacts, LimitFacts, LoadFacts, SessionFacts, WarmFacts
from .findings import Finding
from .grace import read_grace
from .load import load_once
from .machine import read_kernel, read_limits
from .script import handed_by
from .session import measure_session
from .warm import measure_warm

__all__ = ["Examination", "Questions", "examine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Subject of an examination, and its assumptions."""

    app: str
    resolved: Resolved
    processes: int
    session_mb: float
    deployment: Path | None
    with_session: bool = False
    metadata: Any = None
    """Metadata of the session, if a session is run."""
    arguments: tuple[str, ...] = ()
    """Arguments of the app's script, after ``start``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Findings, and the facts behind them."""

    app: str
    findings: tuple[Finding, ...]
    load: LoadFacts
    warm: WarmFacts | None
    """Facts about idle processes; ``None`` if the app cannot be forked as it is."""
    session: SessionFacts | None
    """Facts about a session; ``None`` if none was requested, or if no process became idle."""
    bounds: tuple[Bound, ...]
    limits: LimitFacts
    kernel: KernelFacts
    grace: GraceFacts


async def examine(questions: Questions) -> Examination:
    """Examine an app and this machine. Raises :class:`AppLoadError` and :class:`OptionError`."""
    grace = read_grace(questions.deployment)
    limits, kernel = read_limits(), read_kernel()  # before a pool uses a part of the limits
    options = questions.resolved.settings.pool
    invocation = Invocation(("start", *questions.arguments))
    handed = await handed_by(questions.app, options, invocation)
    load = load_once(questions.app, options, invocation, handed)
    settings = questions.resolved.with_app(unpacked(load.settings)).settings
    options = settings.pool
    findings = [*_of_load(load, options)]
    warm = None
    if not any(finding.level == "problem" for finding in findings):
        warm = await measure_warm(questions.app, options, invocation, questions.processes)
    session = None
    held: list[Bound] = []
    if warm is not None:
        findings += app_findings.of_prewarm(warm, load, options)
        findings += app_findings.of_memory(warm, options)
        findings += app_findings.of_image(warm, options)
        if warm.processes and questions.with_session:
            session = await measure_session(questions.app, options, invocation, questions.metadata)
            findings += app_findings.of_session(session, warm.image_mb, options)
        if warm.processes:
            cpus = None if session is None else session.cpus
            held = bounds(warm, limits, options, questions.session_mb, cpus)
            findings += machine_findings.of_capacity(held, options, questions.session_mb)
    findings += machine_findings.of_limits(limits, held)
    findings += machine_findings.of_kernel(kernel, options)
    findings += machine_findings.of_grace(grace, options, settings.server.drain_timeout)
    return Examination(
        app=questions.app,
        findings=tuple(findings),
        load=load,
        warm=warm,
        session=session,
        bounds=tuple(held),
        limits=limits,
        kernel=kernel,
        grace=grace,
    )


def _of_load(load: LoadFacts, options: PoolOptions) -> Iterator[Finding]:
    yield from app_findings.of_load(load, options)
    yield from app_findings.of_threads(load, options)
    yield from app_findings.of_left_open(load, options)

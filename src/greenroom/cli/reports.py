"""Texts about a job and its exit report, for people. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import Any

from .text import as_json, clock, duration, facts, harmless, one_line

__all__ = ["first_label", "job_text", "started_text"]

LONGEST_RESULT = 10_000
"""Most characters of a result that are shown. ``--json`` shows all."""

_Plain = Mapping[str, Any]


def started_text(job: _Plain) -> str:
    """Return the answer to a start, in one line."""
    if job["start_ms"] is None:
        return one_line(f"job {job['id']} is {job['state']}")
    return one_line(f"job {job['id']} runs in process {job['pid']} ({job['launch_type']}, {job['start_ms']:.1f} ms)")


def job_text(job: _Plain) -> str:
    """Return all facts about a job. After its end, they include its report with traceback and stacks."""
    report = job["report"]
    if report is None:
        return facts([*_head(job), ("start", _start(job))])
    parts = [facts([*_head(job), *_end(report), ("start", _start(job)), *_measured(report)])]
    if report["result_encoding"] is not None:
        parts.append(_section(_result_title(report), _result(report)))
    if report["error"] is not None:
        error = report["error"]
        parts.append(_section("error", error["traceback"] or f"{error['type']}: {error['message']}"))
    if report["stack_dump"]:
        parts.append(_section("stacks just before the kill", report["stack_dump"]))
    return "\n\n".join(parts)


def first_label(job: _Plain) -> str | None:
    """Return the label by which people know a job, such as its room; ``None`` if the job has no label."""
    return next((f"{name}={text}" for name, text in (job.get("labels") or {}).items()), None)


def _head(job: _Plain) -> Iterator[tuple[str, object]]:
    yield "job", job["id"]
    yield "state", job["state"]
    yield "pid", job["pid"]
    yield from (job.get("labels") or {}).items()


def _start(job: _Plain) -> str | None:
    if job["start_ms"] is None:
        return None if job["report"] is None else "never started"
    return f"{job['launch_type']}, {job['start_ms']:.1f} ms"


def _end(report: _Plain) -> Iterator[tuple[str, object]]:
    yield "outcome", report["outcome"]
    yield "reason", report["reason"]
    yield "detail", report["detail"]
    yield "exit code", report["exit_code"]
    if report["signal"] is not None:
        yield "signal", _signal_name(report["signal"])
    yield "process", report["process_id"] and f"{report['process_id']}, generation {report['generation']}"


def _measured(report: _Plain) -> Iterator[tuple[str, object]]:
    times = report["timings"]
    yield "requested", clock(times["requested"])
    if times["started"] is not None and times["ended"] is not None:
        yield "lasted", duration(times["ended"] - times["started"])
    if report["cpu_seconds"] is not None:
        yield "CPU", f"{report['cpu_seconds']:.2f} s"
    if report["peak_memory_mb"] is not None:
        yield "peak memory", f"{report['peak_memory_mb']:.1f} MiB"
    if report["log_records_dropped"]:
        yield "dropped or cut", f"{report['log_records_dropped']} log lines"
    if report["descendants_killed"]:
        yield "left behind", f"{report['descendants_killed']} processes, which were killed"
    if report["result_dropped"]:
        yield "result", "dropped to bound memory"


def _result_title(report: _Plain) -> str:
    return "result" if report["result_encoding"] == "json" else "result (bytes, as base64)"


def _result(report: _Plain) -> str:
    text = str(report["result"]) if report["result_encoding"] == "base64" else as_json(report["result"])
    if len(text) <= LONGEST_RESULT:
        return text
    return f"{text[:LONGEST_RESULT]}\n... and {len(text) - LONGEST_RESULT} more characters; --json shows all"


def _section(title: str, text: str) -> str:
    lines = harmless(text.rstrip("\n")).split("\n")
    return "\n".join([f"{title}:", *(f"  {line}" for line in lines)])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)

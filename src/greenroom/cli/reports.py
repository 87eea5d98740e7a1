"""Texts about a job and its exit report, for people. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..clean_text import cut_end
from .text import as_json, as_short_json, duration, facts, harmless, moment, one_line, table

__all__ = [
    "first_label",
    "found_table",
    "gap_text",
    "job_text",
    "line_text",
    "on_worker",
    "started_text",
    "who_text",
]

_LONGEST_WHO, _LONGEST_METADATA = 60, 1000
LONGEST_RESULT = 10_000
"""Most characters of a result that are shown. ``--json`` shows all."""

_Plain = Mapping[str, Any]


def started_text(job: _Plain) -> str:
    """Return the answer to a start, in one line."""
    if job["start_ms"] is None:
        return one_line(f"job {job['id']} is {job['state']}{on_worker(job)}")
    start = f"{job['launch_type']}, {job['start_ms']:.1f} ms"
    return one_line(f"job {job['id']} runs in process {job['pid']}{on_worker(job)} ({start})")


def on_worker(job: _Plain) -> str:
    """Return the end of a text that names the worker of a job. The text is empty if only one worker was asked."""
    return f" on worker {one_line(job['worker'])}" if "worker" in job else ""


def job_text(job: _Plain) -> str:
    """Return all facts about a job. After its end, they include its report with traceback and stacks."""
    report = job["report"]
    if report is None and job["state"] == "ended":  # it was lost with its worker
        end = [(name, job[name]) for name in ("outcome", "cause", "detail")]
        ended = None if job["ended"] is None else moment(job["ended"])
        return facts([*_head(job), *end, ("start", _start(job)), ("ended", ended)])
    if report is None:
        return facts([*_head(job), ("start", _start(job))])
    parts = [facts([*_head(job), *_end(job, report), ("start", _start(job)), *_measured(report)])]
    if report["result_encoding"] is not None:
        parts.append(_section(_result_title(report), _result(report)))
    if report["error"] is not None:
        error = report["error"]
        parts.append(_section("error", error["traceback"] or f"{error['type']}: {error['message']}"))
    if report["stack_dump"]:
        when = "as it crashed" if report["reason"] == "signaled" else "just before the kill"
        parts.append(_section(f"stacks {when}", report["stack_dump"]))
    return "\n\n".join(parts)


def first_label(job: _Plain) -> str | None:
    """Return the label by which people know a job, such as its room; ``None`` if the job has no label."""
    return next((f"{name}={text}" for name, text in (job.get("labels") or {}).items()), None)


def found_table(jobs: Sequence[_Plain], now: float, *, names_workers: bool) -> str:
    """Return a table of jobs with what an operator asks first: who, since when, how it is, and how it ended."""
    head = ["ID", "STATE", "STARTED", "LASTED", "MIB", "CPU S", "LAST BEAT", "OUTCOME", "REASON", "WHO"]
    rows = ([*_found_cells(job, now), who_text(job)] for job in jobs)
    if not names_workers:
        return table(head, rows)
    return table(["WORKER", *head], ([job["worker"], *row] for job, row in zip(jobs, rows, strict=True)))


def who_text(job: _Plain) -> str | None:
    """Return the labels and the metadata of a job, in short; ``None`` if it has neither."""
    parts = [f"{name}={text}" for name, text in (job["labels"] or {}).items()]
    if job.get("metadata") is not None:
        parts.append(as_short_json(job["metadata"]))
    return cut_end(" ".join(parts), _LONGEST_WHO) or None


def line_text(line: _Plain) -> str:
    """Return a line of a job's log. Further lines of its text are indented."""
    text = harmless(line["text"]).replace("\n", "\n    ")
    return f"{moment(line['at'])} {line['level'].upper():<7} {one_line(line['origin'])}: {text}"


def gap_text(lines: int) -> str:
    """Return the text that stands for lines of a log that are not kept."""
    return f"... {lines} lines are not kept"


def _found_cells(job: _Plain, now: float) -> list[object]:
    started, memory, cpu = job["started"], job["memory_mb"], job["cpu_seconds"]
    age = job["beat_age"]
    beat = None if age is None else f"{age:.1f} s{' STUCK' if job['is_stuck'] else ''}"
    report_time = job["ended"] if job["ended"] is not None else now
    return [
        job["id"],
        job["state"],
        None if started is None else moment(started),
        None if started is None else duration(report_time - started),
        None if memory is None else f"{memory:.0f}",
        None if cpu is None else f"{cpu:.1f}",
        beat,
        job["outcome"],
        job["reason"],
    ]


def _live(job: _Plain) -> Iterator[tuple[str, object]]:
    """Yield what is known of a running job."""
    if job["metadata"] is not None:
        yield "metadata", cut_end(as_short_json(job["metadata"]), _LONGEST_METADATA)
    yield "source", job["source"]
    yield "app version", job["app_version"]
    yield "trace", job["trace_id"]
    if job["state"] != "ended" and job["started"] is not None:
        yield "generation", job["generation"]
        yield "started", moment(job["started"])
        if job["memory_mb"] is not None:
            yield "memory", f"{job['memory_mb']:.1f} MiB"
        if job["cpu_seconds"] is not None:
            yield "CPU", f"{job['cpu_seconds']:.2f} s"
        if job["beat_age"] is not None:
            stuck = ": its event loop stands still (greenroom jobs stack)" if job["is_stuck"] else ""
            yield "last beat", f"{job['beat_age']:.1f} s ago{stuck}"


def _head(job: _Plain) -> Iterator[tuple[str, object]]:
    yield "job", job["id"]
    yield "worker", job.get("worker")
    yield "state", job["state"]
    yield "pid", job["pid"]
    yield from (job.get("labels") or {}).items()
    yield from _live(job)


def _start(job: _Plain) -> str | None:
    if job["start_ms"] is None:
        return None if job["report"] is None else "never started"
    return f"{job['launch_type']}, {job['start_ms']:.1f} ms"


def _end(job: _Plain, report: _Plain) -> Iterator[tuple[str, object]]:
    yield "outcome", report["outcome"]
    yield "reason", report["reason"]
    yield "detail", report["detail"]
    if job["cause"] != f"{report['outcome']}, {report['reason']}":  # otherwise the cause repeats these two
        yield "cause", job["cause"]
    yield "exit code", report["exit_code"]
    if report["signal"] is not None:
        yield "signal", _signal_name(report["signal"])
    yield "process", report["process_id"] and f"{report['process_id']}, generation {report['generation']}"


def _measured(report: _Plain) -> Iterator[tuple[str, object]]:
    times = report["timings"]
    yield "requested", moment(times["requested"])
    if times["ended"] is not None:
        yield "ended", moment(times["ended"])
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

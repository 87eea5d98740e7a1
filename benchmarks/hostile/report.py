"""The result of a run: what is right and wrong with it, as data, and as a table in plain words."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from statistics import median
from typing import Any

from .account import Account, account_of, faults, went_wrong
from .run import SPARE_FDS, Run, Seen

PEAK_BOUND_MB = 512.0
"""How far the supervisor may grow: 128 MiB of kept results, as much in transit, and as much again for what is sent
and read in pieces and for the allocator."""
END_BOUND_MB = 384.0
"""How far it may have grown when all is over: the kept results, and twice as much for the allocator, which gives
little back of what large results took."""
SPARE_THREADS = 10


def result_of(run: Run) -> dict[str, Any]:
    seen, sessions = run.seen, list(run.clients.sessions.values())
    account = account_of(sessions, seen.killed)
    start_mb = seen.start.rss_mb if seen.start else 0.0
    end_mb = seen.end.rss_mb if seen.end else 0.0
    found = faults(
        account,
        grown_peak_mb=seen.peak_mb - start_mb if seen.peak_mb else 0.0,
        grown_end_mb=end_mb - start_mb,
        bounds=(PEAK_BOUND_MB, END_BOUND_MB),
        others=_other_faults(seen),
    )
    return {
        "options": asdict(run.options),
        "faults": list(found),
        "sessions": _sessions(account, sessions),
        "went_wrong_under": _went_wrong_under(seen, sessions),
        "event_loop": _event_loop(run),
        "memory_mb": {"start": start_mb, "peak": seen.peak_mb, "end": end_mb, "bounds": [PEAK_BOUND_MB, END_BOUND_MB]},
        "start": asdict(seen.start) if seen.start else None,
        "end": asdict(seen.end) if seen.end else None,
        "peak": {name: max((getattr(each, name) for each in seen.samples), default=0) for name in ("fds", "threads")},
        "machine": _machine(seen),
        "attacks": seen.attacks,
        "log": {"mb": round(run.worker.log.bytes / 2**20, 1), "broken_lines": run.worker.log.broken},
        "exit_code": seen.exit_code,
    }


def _other_faults(seen: Seen) -> list[str]:
    found = [f"the attack itself failed: {each}" for each in seen.broken]
    found += [] if seen.attacks else ["the attackers' process ended before its time"]
    found += [f"left over after the end: {each}" for each in seen.left]
    if seen.ended_early is not None:
        return [f"the worker ended {seen.ended_early}", *found]
    if seen.exit_code != 0:
        found.append("the worker did not end" if seen.exit_code is None else f"its exit code was {seen.exit_code}")
    if seen.start and seen.end and seen.end.fds > seen.start.fds + SPARE_FDS:
        found.append(f"{seen.end.fds} files are open after the attack; {seen.start.fds} were before")
    if seen.start and seen.end and seen.end.threads > seen.start.threads + SPARE_THREADS:
        found.append(f"{seen.end.threads} threads live after the attack; {seen.start.threads} did before")
    if not seen.probe.get("asked") or seen.probe["failed"]:
        found.append(f"/livez was not answered {seen.probe.get('failed', 'at all')} times")
    return found


def _sessions(account: Account, sessions: list[Any]) -> dict[str, Any]:
    honest = sorted(each.seconds for each in sessions if each.is_honest and each.answer == "accepted")
    gaps = [each.result["gap"] for each in sessions if isinstance(each.result, dict) and each.kind == "live"]
    return {
        "served": dict(account.served),
        "lost": account.lost,
        "rejected": dict(account.rejected),
        "attackers_rejected": dict(account.attackers_rejected),
        "killed_by_an_attack": account.attacked,
        "results_dropped": sum(each.result_dropped for each in sessions),
        "start_seconds": {"p50": round(median(honest), 4), "max": round(honest[-1], 3)} if honest else {},
        "longest_gap_in_a_live_session": max(gaps, default=None),
    }


def _went_wrong_under(seen: Seen, sessions: list[Any]) -> dict[str, int]:
    """How many sessions went wrong while an attack had its turn: the first is the likeliest cause."""
    wrong = (each for each in sessions if went_wrong(each, seen.killed))
    found = Counter(name for each in wrong for name in under(seen, each.at, each.seconds))
    return dict(found.most_common())


def _event_loop(run: Run) -> dict[str, Any]:
    probe = {name: value for name, value in run.seen.probe.items() if name != "slow"}
    slow = [
        {"seconds": seconds, "under": under(run.seen, at, seconds)} for at, seconds in run.seen.probe.get("slow", [])
    ]
    held = [{"seconds": seconds, "under": under(run.seen, at, seconds)} for at, seconds in run.worker.log.hold_ups]
    held.sort(key=lambda each: -each["seconds"])
    return {"livez": probe, "slow_answers": slow[:20], "held_up": held[:20], "times_held_up": len(held)}


def under(seen: Seen, at: float, seconds: float) -> list[str]:
    """The attacks whose turns overlap the seconds before a moment."""
    return sorted({name for name, begin, end in seen.turns if begin <= at and at - seconds <= end})


def _machine(seen: Seen) -> dict[str, float]:
    loads, steals = [each.load for each in seen.samples], [each.steal for each in seen.samples]
    if not seen.samples:
        return {}
    return {
        "load_mean": round(sum(loads) / len(loads), 1),
        "load_max": round(max(loads), 1),
        "steal_mean": round(sum(steals) / len(steals), 3),
        "steal_max": round(max(steals), 3),
    }


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    rows = [*_session_rows(result), *_machine_rows(result)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += ["", *(f"FAULT: {fault}" for fault in result["faults"][:40])]
    more = len(result["faults"]) - 40
    lines += [f"... and {more} more"] if more > 0 else []
    return "\n".join([*lines, "" if result["faults"] else "Every session is accounted for, and nothing is left over."])


def _session_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    sessions = result["sessions"]
    served, starts = sessions["served"], sessions["start_seconds"]
    return [
        ("live sessions served", f"{served.get('live', 0)} of {result['options']['live']}"),
        ("short sessions served", str(served.get("short", 0))),
        ("sessions lost", str(len(sessions["lost"]))),
        ("honest starts not accepted", _counted(sessions["rejected"])),
        ("  these and the lost, by attack", _counted(result["went_wrong_under"])),
        ("attackers' sessions accounted for", str(served.get("attackers", 0))),
        ("attackers' starts not accepted", _counted(sessions["attackers_rejected"])),
        ("killed by an attack while they started", str(sessions["killed_by_an_attack"])),
        ("results dropped, as documented", str(sessions["results_dropped"])),
        ("honest start until its answer", f"median {starts.get('p50')} s, longest {starts.get('max')} s"),
        ("longest gap in a live session", f"{sessions['longest_gap_in_a_live_session']} s"),
    ]


def _machine_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    loop, memory, machine = result["event_loop"], result["memory_mb"], result["machine"]
    livez, start, end = loop["livez"], result["start"] or {}, result["end"] or {}
    slowest = ", ".join(loop["slow_answers"][0]["under"]) or "no attack" if loop["slow_answers"] else "(below 0.5 s)"
    longest = loop["held_up"][0] if loop["held_up"] else {"seconds": 0, "under": []}
    return [
        (
            "/livez from outside",
            f"median {livez.get('p50')} s, 99 % {livez.get('p99')} s, longest {livez.get('max')} s",
        ),
        ("  attack during the longest", slowest),
        ("  lateness of the probe itself", f"{livez.get('own_late')} s at most"),
        ("event loop held up, by its log", f"{loop['times_held_up']} times, longest {longest['seconds']} s"),
        ("  attack during the longest", ", ".join(longest["under"]) or "-"),
        ("load of the machine", f"mean {machine.get('load_mean')}, most {machine.get('load_max')}"),
        ("CPU time stolen from it", f"mean {machine.get('steal_mean', 0):.1%}, most {machine.get('steal_max', 0):.1%}"),
        (
            "supervisor's memory, MiB",
            f"{memory['start']:.0f} at start, {memory['peak']:.0f} at most, {memory['end']:.0f} at end",
        ),
        ("  bounds", f"growth by {memory['bounds'][0]:.0f} at most, and by {memory['bounds'][1]:.0f} at the end"),
        ("its open files", f"{start.get('fds')} at start, {result['peak']['fds']} at most, {end.get('fds')} at end"),
        (
            "its threads",
            f"{start.get('threads')} at start, {result['peak']['threads']} at most, {end.get('threads')} at end",
        ),
        ("its log", f"{result['log']['mb']} MiB, {result['log']['broken_lines']} lines that are not JSON"),
        ("its exit code", str(result["exit_code"])),
    ]


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in counts.items()) or "0"

"""Findings from the facts about an app: its load, its leftovers in the zygote, its processes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ..options import PoolOptions
from .facts import LoadFacts, SessionFacts, WarmFacts
from .findings import Finding, note, ok, problem, warning

__all__ = ["of_image", "of_left_open", "of_load", "of_memory", "of_prewarm", "of_session", "of_threads"]

_SLOW_LOAD = 10.0
"""Seconds of a slow load. A reload takes at least as long, and so does the replacement of a lost zygote."""
_MUCH_OF_A_TIMEOUT = 0.5
_SLOW_IDLE = 0.25
_MUCH_PRIVATE = 30.0
"""MiB of private memory above which a process has much. A process of an app without prewarm has about 4 MiB."""
_MUCH_COPIED, _FEW_MB = 0.2, 5.0
"""Share of the loaded app that a session may copy, and number of MiB that a session may always copy."""
_SHARE_SHOWN = 0.1
_MUCH_IN_SMALL_PAGES = 256.0
"""MiB in small pages from which on a fork takes noticeably longer."""
_MOST_SHOWN = 3

_NO_THREADS = (
    "start them in {prewarm}, or use --start-method spawn. If their locks cannot matter, add their names to "
    "allow_threads. {remedies}"
)


def of_load(load: LoadFacts, options: PoolOptions) -> Iterator[Finding]:
    total = load.import_seconds + load.preload_seconds
    found = (
        f"imports took {load.import_seconds:.2f} s, preload took {load.preload_seconds:.2f} s"
        f"{'' if load.has_preload else ' (the app has none)'}; {load.modules} modules were imported{_dominating(load)}"
    )
    if total > _MUCH_OF_A_TIMEOUT * options.preload_timeout:
        todo = (
            f"raise preload_timeout ({options.preload_timeout:g} s), or load less: a slower disk or CPU would exceed it"
        )
        yield warning("load", found, todo)
    elif total > _SLOW_LOAD:
        todo = "the app loads before the first session and at each reload. Import only modules that are needed at once"
        yield note("load", found, todo)
    else:
        yield ok("load", found)


def of_threads(load: LoadFacts, options: PoolOptions) -> Iterator[Finding]:
    refused = [name for name in load.threads if not set(name.split(" / ")) & set(load.allowed_threads)]
    allowed = [name for name in load.threads if name not in refused]
    if refused and options.start_method == "zygote":
        named = f"{_count(len(refused), 'thread')}: {', '.join(refused)}"
        found = f"imports or preload left {named}. The zygote refuses to fork with them"
        yield problem(
            "threads", found, _NO_THREADS.format(prewarm=load.prewarm_name, remedies=load.remedies).rstrip(". ")
        )
    elif refused:
        yield note("threads", f"imports or preload start {', '.join(refused)}, which does no harm with spawn")
    if allowed:
        found = f"allowed threads that imports or preload left: {', '.join(allowed)}"
        yield note("threads", found, "make sure that none of them holds a lock while the app is idle")
    if not load.threads:
        yield ok("threads", "imports and preload left no thread")


def of_left_open(load: LoadFacts, options: PoolOptions) -> Iterator[Finding]:
    for sentence in load.fds:
        found, _, todo = sentence.partition(": ")
        if options.start_method == "zygote":
            yield warning("sockets", found, todo or "open it in prewarm instead")
    for child in load.children:
        todo = "all sessions share it. Start it outside of the app, or in prewarm if each session needs its own"
        yield note("sockets", f"imports or preload left a process running: {child}", todo)
    if not load.fds and not load.children:
        yield ok("sockets", "imports and preload left no socket, pipe or process")


def of_prewarm(warm: WarmFacts, load: LoadFacts, options: PoolOptions) -> Iterator[Finding]:
    for failure in warm.failures:
        cause, _, traceback = failure.partition("\n")
        todo = "no session can start. Make prewarm succeed on this machine, with all servers that it needs"
        yield problem("prewarm", f"a process did not become idle: {cause}", f"{todo}\n{traceback}".rstrip())
    if not warm.idle_seconds:
        return
    idle, prewarm = median(warm.idle_seconds), median(warm.prewarm_seconds)
    found = (
        f"a process takes {_ms(idle)} from fork to idle, with {_ms(prewarm)} in prewarm and the warm-up run"
        f"{'' if load.has_prewarm else ' (the app has no prewarm)'}; the longest took {_ms(max(warm.idle_seconds))}"
    )
    if max(warm.idle_seconds) > _MUCH_OF_A_TIMEOUT * options.prewarm_timeout:
        todo = f"do less in prewarm, or raise prewarm_timeout ({options.prewarm_timeout:g} s): load slows it down"
        yield warning("prewarm", found, todo)
    elif idle > _SLOW_IDLE:
        todo = (
            f"the pool replaces at most {options.max_concurrent_prewarms / idle:.1f} claimed processes per second "
            f"(max_concurrent_prewarms={options.max_concurrent_prewarms}). Move work without connections to preload, "
            f"or raise num_idle_processes"
        )
        yield note("prewarm", found, todo)
    else:
        yield ok("prewarm", found)


def of_memory(warm: WarmFacts, options: PoolOptions) -> Iterator[Finding]:
    if not warm.processes:
        return
    private, shared, pss = (
        median(getattr(process, name) for process in warm.processes) for name in ("private_mb", "shared_mb", "pss_mb")
    )
    found = (
        f"an idle process has {private:.1f} MiB of private and {shared:.1f} MiB of shared memory (PSS {pss:.1f} MiB, "
        f"median of {len(warm.processes)})"
    )
    if private > _MUCH_PRIVATE and options.start_method == "zygote":
        todo = (
            "each process needs its own private memory. Load read-only data in preload instead of prewarm, and "
            "move imports from prewarm to the top of the module"
        )
        yield warning("memory", found, todo)
    elif options.start_method == "spawn":
        yield note(
            "memory",
            found,
            "start_method=spawn shares no loaded code or data; zygote shares them, if the app can be forked",
        )
    else:
        yield ok("memory", found)
    limit = options.memory_limit_mb
    if limit is not None and pss > _MUCH_OF_A_TIMEOUT * limit:
        todo = f"raise memory_limit_mb ({limit:g} MiB): an idle process already uses more than half of it"
        yield warning("memory", f"an idle process already has {pss:.0f} MiB (PSS)", todo)


def of_image(warm: WarmFacts, options: PoolOptions) -> Iterator[Finding]:
    """Judge the memory of the zygote, as far as forks depend on it."""
    image = warm.image
    if image is None or not image.fork_seconds:
        return
    found = (
        f"a fork takes {_ms(median(image.fork_seconds))}; the zygote has {image.anonymous_mb:.0f} MiB of memory "
        f"without a file, {image.huge_pages_mb:.0f} MiB of it in huge pages ({image.huge_pages_seconds:.2f} s of CPU)"
    )
    small = image.anonymous_mb - image.huge_pages_mb
    if small < _MUCH_IN_SMALL_PAGES:
        yield ok("image", found)
    elif options.huge_pages_seconds is None:
        yield note("image", found, "huge_pages_seconds is off: each fork copies the page tables of this memory")
    else:
        todo = (
            f"map weights from files, which costs a fork nothing (see Large models in the docs), or raise "
            f"huge_pages_seconds ({options.huge_pages_seconds:g} s)"
        )
        yield note("image", found, todo)


def of_session(session: SessionFacts, image_mb: float, options: PoolOptions) -> Iterator[Finding]:
    """Judge one session. ``image_mb`` is the memory of the loaded app in MiB, which all processes share."""
    before, after = session.before, session.after
    if session.failure:
        todo = "give --session the metadata of a session that succeeds. These figures are of a session that failed"
        yield warning("session", f"the session did not succeed: {session.failure}", todo)
    if before is None or after is None:
        todo = "let the entrypoint wait for a moment before it returns"
        yield note("session", "the session ended before its memory could be measured", todo)
        return
    grown = max(after.private_mb - before.private_mb, 0.0)
    found = (
        f"a session takes {grown:.1f} MiB: its process had {before.private_mb:.1f} MiB of private memory when it was "
        f"idle, and at most {after.private_mb:.1f} MiB with the session"
    )
    copied = min(grown, max(before.shared_mb - after.shared_mb, 0.0))
    if copied > max(_MUCH_COPIED * image_mb, _FEW_MB) and options.start_method == "zygote":
        found += f"; {copied:.1f} MiB of that are copies of the loaded app, which has {image_mb:.1f} MiB"
        todo = (
            "a read of Python objects writes to their reference counts, which copies them. Keep large tables in one "
            "buffer (numpy, array, bytes, mmap, SQLite), not in dicts and lists of objects"
        )
        yield warning("session", found, todo)
    else:
        yield ok("session", f"{found} (--session-mb {grown:.0f})")


def _dominating(load: LoadFacts) -> str:
    total = sum(cost.self_seconds for cost in load.packages)
    large = [cost for cost in load.packages if cost.self_seconds >= _SHARE_SHOWN * total][:_MOST_SHOWN]
    if load.import_seconds + load.preload_seconds < _SLOW_IDLE or not large:
        return ""
    named = (f"{cost.package} {cost.self_seconds:.2f} s" for cost in large)
    return f"; most of their time is {', '.join(named)}"


def _ms(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

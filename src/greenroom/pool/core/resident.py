"""Resident process of a generation: its news, the watch of its event loop, and the delay before its replacement.

A resident process answers questions (:mod:`.questions`) and gets news. The pool keeps all news that still holds. Each
new resident process gets this news, also after a reload.
"""

from __future__ import annotations

from ...app_facts import REQUEST, AppFacts
from .records import Pool, Process
from .states import ProcessState
from .vocabulary import Inform, News, SetNews, WatchStalls

__all__ = ["brief", "is_wanted", "note_loss", "put_to_work", "set_news", "takes"]

SHORTEST_STALL = 5.0
"""Seconds that an event loop may stand still if ``request_timeout`` is shorter, as a loop beats once a second."""
LIVED = 5.0
"""Seconds of life after which the end of a resident process does not delay the next one."""


def is_wanted(facts: AppFacts | None) -> bool:
    """Return true if the app has work for a resident process."""
    return facts is not None and (facts.has_request or bool(facts.topics))


def takes(facts: AppFacts | None, topic: str) -> bool:
    """Return true if the app answers questions, or gets news, of a topic."""
    return facts is not None and (topic in facts.topics or (topic == REQUEST and facts.has_request))


def put_to_work(pool: Pool, process: Process) -> None:
    """Watch the event loop of a process from its first work on. A stalled event loop answers no question."""
    if not process.was_put_to_work:
        longest = max(process.options.request_timeout, SHORTEST_STALL)
        pool.emit(WatchStalls(process.id, min(process.options.stall_timeout or longest, longest)))
    process.was_put_to_work = True


def set_news(pool: Pool, message: SetNews) -> None:
    """Keep a piece of news, or drop one that holds no longer. Notify the resident process of the change."""
    key = (message.topic, message.key)
    if pool.news.pop(key, None) is None and message.body is None:
        return
    if message.body is not None:
        pool.news[key] = message.body
    serving = pool.serving
    process = serving.resident if serving is not None else None
    if process is not None and process.state is ProcessState.RESIDENT:
        _inform(pool, process, [News(message.topic, message.key, message.body)])


def brief(pool: Pool, process: Process) -> None:
    """Send all news that holds to a new resident process, oldest first."""
    _inform(pool, process, [News(topic, key, body) for (topic, key), body in pool.news.items()])


def _inform(pool: Pool, process: Process, news: list[News]) -> None:
    heard = tuple(one for one in news if takes(process.facts, one.topic))
    if heard:
        pool.emit(Inform(process.id, heard))
        put_to_work(pool, process)


def note_loss(pool: Pool, process: Process) -> None:
    """Count an unwanted loss of a resident process. Several losses in a row delay the replacement.

    If the process had lived for some seconds, earlier losses are forgotten first.
    """
    breaker = process.generation.resident_breaker
    if not process.was_put_to_work or process.is_recalled:
        return
    if pool.now - process.idle_since >= LIVED:
        breaker.succeeded()
    breaker.failed(pool.now, process.fate)

"""Plans of histories: options, faults, versions of the code, and what callers do, all drawn from one seed.

Each entity (process, launcher, reservation) has a random stream of its own, by seed, kind and number. So a history
can be shortened: dropping one action, or one fault, leaves what the others draw as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple

from greenroom.options import PoolOptions

__all__ = ["FAULTS", "PROFILES", "QUERIES", "Action", "Code", "Plan", "draw_plan", "stream"]


class Action(NamedTuple):
    """Something that a caller, an operator or chance does at one moment."""

    at: float
    kind: str
    number: int = 0
    seconds: float = 0.0
    flag: bool = False
    count: int = 0
    most: int | None = None
    then: tuple[tuple[float, str], ...] = ()
    """What the holder of a reservation does: seconds after it was granted, and the act."""


class Code(NamedTuple):
    """One version of the app's code, as it lies on disk."""

    digest: str
    load: str = "loads"
    """``loads``, ``fails`` or ``hangs``."""
    prewarm: str = "works"
    """``works``, ``raises``, ``hangs`` or ``dies``."""
    has_request: bool = False
    end_timeout: float = 0.0
    settings: tuple[tuple[str, object], ...] = ()
    topics: tuple[str, ...] = ()
    """Of its integration: what is asked and told in the resident process."""


FAULTS = (
    "fork_late",
    "fork_fails",
    "fork_hangs",
    "die_young",
    "die_idle",
    "die_claimed",
    "die_running",
    "die_ending",
    "dead_unseen",
    "stop",
    "stall",
    "starve",
    "heavy",
    "nonsense",
    "double",
    "wrong",
    "waits",
    "hang_young",
    "hang_claimed",
    "hang_running",
    "hang_ending",
    "prewarm_raises",
    "overrun",
    "deaf",
    "races",
    "dump_never",
    "unkillable",
    "slow_kill",
    "status_late",
    "status_never",
    "status_lost",
    "traced",
    "slow_words",
    "oom",
    "answer_never",
    "rejects",
    "answer_late",
    "hook_stalls",
    "hook_starves",
    "measured",
    "launcher_fails",
    "launcher_never",
    "launcher_hangs_loading",
    "launcher_load_fails",
    "launcher_lost_loading",
    "launcher_lost",
    "launcher_hangs",
    "launcher_starved",
    "launcher_breaks",
    "launcher_doubles",
    "launcher_unkillable",
    "launcher_slow_kill",
    "launcher_dump_never",
    "launcher_keeps_on",
    "late_ticks",
    "no_fds",
    "pause",
)
"""What can go wrong, beside what the code on disk does. A plan gives each a probability."""

PROFILES: dict[str, dict[str, float]] = {
    "three losses": {"die_claimed": 0.9, "die_running": 0.1},
    "unseen deaths": {"dead_unseen": 0.7, "die_idle": 0.2, "heavy": 0.5},
    "failing": {"prewarm_raises": 0.5, "deaf": 0.8, "heavy": 0.7, "stop": 0.5},
    "no acknowledgement": {"hang_claimed": 0.8, "unkillable": 0.3, "dump_never": 0.2},
    "unkillable": {"unkillable": 0.5, "slow_kill": 0.5, "hang_running": 0.4, "heavy": 0.5, "stop": 0.4, "deaf": 0.5},
    "statuses": {"status_late": 0.3, "status_never": 0.5, "traced": 0.3, "launcher_lost": 0.4, "die_running": 0.4},
    "late statuses": {"die_claimed": 0.9, "status_late": 0.9, "die_running": 0.2},
    "slow ends": {"hang_ending": 0.7, "deaf": 0.6, "heavy": 0.5, "stop": 0.4, "stall": 0.3, "unkillable": 0.3},
    "unseen losses": {"dead_unseen": 0.5, "die_claimed": 0.7},
    "mute": {"hang_claimed": 0.8},
    "endless": {"hang_running": 0.8},
    "untold": {"nonsense": 0.4, "die_claimed": 0.5, "slow_words": 0.5},
    "late parents": {"status_never": 0.9, "launcher_slow_kill": 0.9, "die_running": 0.5, "heavy": 0.5},
    "stutter": {"double": 0.8, "die_running": 0.5, "slow_words": 0.8},
    "stubborn": {"slow_kill": 0.9, "hang_running": 0.4, "hang_claimed": 0.4},
    "memory": {"oom": 1.0, "die_running": 0.5, "die_ending": 0.3, "die_idle": 0.2, "die_claimed": 0.3, "heavy": 0.3},
    "breaks": {"nonsense": 0.3, "double": 0.2, "wrong": 0.3, "slow_words": 0.5},
    "own ends": {"overrun": 0.4, "races": 0.5, "hang_ending": 0.3, "deaf": 0.3, "slow_words": 0.3},
    "launcher losses": {"launcher_lost": 0.8, "fork_late": 0.4, "launcher_lost_loading": 0.3},
    "launcher hangs": {"launcher_hangs": 0.6, "launcher_unkillable": 0.4, "launcher_slow_kill": 0.4, "fork_hangs": 0.2},
    "loads": {
        "launcher_hangs_loading": 0.3,
        "launcher_load_fails": 0.2,
        "launcher_lost_loading": 0.2,
        "launcher_never": 0.15,
        "launcher_dump_never": 0.4,
        "launcher_fails": 0.1,
        "launcher_breaks": 0.2,
        "launcher_unkillable": 0.3,
    },
    "breaks when overdue": {"launcher_hangs_loading": 0.7, "launcher_dump_never": 0.8, "launcher_breaks": 0.8},
    "launcher breaks": {"launcher_breaks": 0.5, "launcher_doubles": 0.4, "launcher_keeps_on": 0.4},
    "no warmth": {"prewarm_raises": 0.5, "hang_young": 0.3, "die_young": 0.3, "fork_fails": 0.3},
    "stops": {"stop": 0.5, "stall": 0.3, "starve": 0.2, "heavy": 0.3},
    "hook": {"answer_never": 0.3, "rejects": 0.3, "die_idle": 0.3, "stop": 0.2, "nonsense": 0.2},
    "stalled hook": {"hook_stalls": 0.6, "answer_never": 0.5, "answer_late": 0.5, "deaf": 0.3, "unkillable": 0.2},
    "lost hook": {"answer_never": 0.9, "die_idle": 0.8},
    "starved": {"launcher_starved": 0.8, "fork_hangs": 0.3, "fork_late": 0.3},
    "waits": {"waits": 0.8, "hang_running": 0.2, "hang_ending": 0.2},
    "supervisor": {"pause": 1.0, "no_fds": 1.0, "late_ticks": 1.0, "die_idle": 0.2},
}
"""Faults that must come together."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a history is made of."""

    seed: int
    options: PoolOptions
    fixed: frozenset[str]
    weights: dict[str, float]
    codes: tuple[Code, ...]
    actions: tuple[Action, ...]
    pace: float = 1.0
    """How slow processes and launchers are."""
    lag: float = 0.0
    """Seconds by which each tick is late."""
    muted: frozenset[tuple[str, int]] = frozenset()
    """Processes and launchers that nothing happens to."""
    profile: str = ""

    def without(self, fault: str) -> Plan:
        """Return the plan less a kind of fault."""
        return replace(self, weights={name: weight for name, weight in self.weights.items() if name != fault})


KINDS = {"plan": 1, "process": 2, "launcher": 3, "reservation": 4, "world": 5}


def stream(seed: int, kind: str, number: int) -> Random:
    """Return the random stream of one entity."""
    return Random(((seed * 8 + KINDS[kind]) << 20) + number)


@dataclass(slots=True)
class _Drawer:
    rng: Random
    actions: list[Action] = field(default_factory=list)
    number: int = 0
    at: float = 0.0

    def pick(self, *values: object) -> object:
        return values[int(self.rng.random() * len(values))]


def draw_plan(seed: int, *, promises: bool = True) -> Plan:
    """Draw a history's plan. Without ``promises``, no reservation takes a place in the queue."""
    rng = stream(seed, "plan", 0)
    profile = _draw_profile(rng)
    weights = _draw_weights(rng, profile)
    options = _draw_options(rng)
    codes = tuple(_draw_code(rng, number, profile) for number in range(4))
    fixed = frozenset(PoolOptions.__dataclass_fields__) if rng.random() < 0.6 else frozenset()
    actions = _draw_actions(rng, options)
    lag = rng.choice((0.0, 0.001, 0.2)) if weights.get("late_ticks", 0.0) > rng.random() else 0.0
    pace = rng.choice((0.05, 0.3, 1.0, 1.0, 3.0))
    codes, actions, weights = _with_queries(stream(seed, "plan", 1), codes, actions, weights)
    if promises:
        actions = _with_promises(stream(seed, "plan", 2), actions)
    return Plan(seed, options, fixed, weights, codes, actions, pace, lag, profile=profile)


QUERIES = 1000
"""The numbers of questions that are not about a job begin here."""


def _with_queries(
    rng: Random, codes: tuple[Code, ...], actions: tuple[Action, ...], weights: dict[str, float]
) -> tuple[tuple[Code, ...], tuple[Action, ...], dict[str, float]]:
    """Have an integration ask and tell something, in some of the plans. What others draw stays as it is."""
    if rng.random() >= 0.2:
        return codes, actions, weights
    codes = tuple(code._replace(topics=("job", "load") if rng.random() < 0.85 else ()) for code in codes)
    span = max(action.at for action in actions if action.kind in ("launch", "reserve", "drain", "resize", "close"))
    span = min(span, 30.0)
    more = [
        Action(span * rng.random(), "query", QUERIES + number, rng.choice((0.3, 2.5, 2.5)))
        for number in range(rng.randint(0, 8))
    ]
    for number in range(rng.randint(0, 6)):
        most = None if rng.random() < 0.3 else number
        more.append(Action(span * rng.random(), "tell", count=rng.randint(0, 2), most=most))
    if rng.random() < 0.4:
        weights = {**weights, "die_informed": rng.choice((0.3, 1.0))}
    return codes, tuple(sorted((*actions, *more), key=lambda action: action.at)), weights


def _with_promises(rng: Random, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """Have reservations take a promise, in half of the plans. What others draw stays as it is."""
    if rng.random() < 0.5:
        return actions
    return tuple(each._replace(flag=rng.random() < 0.6) if each.kind == "reserve" else each for each in actions)


def _draw_profile(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.1:
        return "calm"
    if kind < 0.35:
        return "few"
    if kind < 0.5:
        return "many"
    return rng.choice(list(PROFILES))


def _draw_weights(rng: Random, profile: str) -> dict[str, float]:
    if profile == "calm":
        return {}
    if profile == "few":
        return {name: rng.choice((0.1, 0.3, 0.8)) for name in rng.sample(FAULTS, rng.randint(1, 4))}
    if profile == "many":
        return {name: rng.random() * 0.12 for name in FAULTS}
    weights = dict(PROFILES[profile])
    if rng.random() < 0.5:
        weights |= {name: rng.choice((0.05, 0.2)) for name in rng.sample(FAULTS, rng.randint(1, 3))}
    return weights


def _draw_options(rng: Random) -> PoolOptions:
    pick = rng.choice
    num_idle = pick((0, 1, 1, 2, 3))
    return PoolOptions(
        num_idle_processes=num_idle,
        max_idle_processes=pick((None, None, num_idle, num_idle + 2)),
        max_jobs=pick((1, 2, 3, 5, 100, 100)),
        max_concurrent_prewarms=pick((1, 2, 4)),
        preload_timeout=pick((0.5, 2.0, 10.0, 60.0)),
        prewarm_timeout=pick((0.3, 1.0, 5.0, 10.0, 10.0)),
        request_timeout=pick((0.2, 1.0, 3.0, 8.0)),
        request_failure="accept" if rng.random() < 0.35 else "reject",
        reservation_timeout=pick((0.3, 2.0, 10.0)),
        start_timeout=pick((0.1, 1.0, 5.0, 5.0)),
        job_timeout=pick((None, None, None, 1.0, 5.0)),
        shutdown_timeout=pick((0.2, 2.0, 10.0)),
        cleanup_timeout=pick((0.2, 1.0, 5.0)),
        stall_timeout=pick((None, 1.0, 15.0, 15.0)),
        memory_limit_mb=pick((None, 500.0)),
        idle_ttl=pick((0.6, 0.6, 5.0, 5.0, 60.0)),
        start_method="spawn" if rng.random() < 0.12 else "zygote",
    )


def _draw_code(rng: Random, number: int, profile: str) -> Code:
    is_good = rng.random() < (0.9 if number == 0 else 0.6)
    has_request = rng.random() < (1.0 if "hook" in profile else 0.25)
    end_timeout = rng.choice((0.0, 0.0, 0.5, 3.0))
    settings: tuple[tuple[str, object], ...] = ()
    if rng.random() < 0.25:
        name, value = rng.choice(
            (
                ("num_idle_processes", 2),
                ("max_jobs", 2),
                ("prewarm_timeout", 2.0),
                ("shutdown_timeout", 1.0),
                ("job_timeout", 4.0),
                ("max_concurrent_prewarms", 1),
                ("start_timeout", -1.0),
            )
        )
        settings = ((name, value),)
    load, prewarm = "loads", "works"
    if not is_good:
        load = rng.choice(("loads", "loads", "fails", "hangs"))
        prewarm = rng.choice(("raises", "raises", "hangs", "dies", "works"))
    return Code(f"code {number}", load, prewarm, has_request, end_timeout, settings)


def _draw_actions(rng: Random, options: PoolOptions) -> tuple[Action, ...]:
    drawer = _Drawer(rng)
    span = rng.choice((0.5, 3.0, 10.0, 30.0))
    # Few kinds in one history, each of them often: what needs two of a kind is found by that.
    kinds = rng.choices(tuple(_KINDS), tuple(weight for weight, _ in _KINDS.values()), k=rng.randint(1, 5))
    kinds += ["launch", "reserve"]
    for _ in range(rng.randint(3, 14)):
        drawer.at = rng.random() * span
        kind = rng.choice(kinds)
        _KINDS[kind][1](drawer)
    for _ in range(int(rng.random() < 0.15)):
        drawer.at = rng.random() * span
        drawer.actions.append(Action(drawer.at, "drain", seconds=rng.choice((0.0, 0.5, 5.0, 60.0))))
    drawer.at = span
    _draw_end(drawer)
    return _numbered(drawer.actions)


def _numbered(actions: list[Action]) -> tuple[Action, ...]:
    """Return the actions in their order, with requests numbered as they come."""
    actions.sort()
    requests = (action.number for action in actions if action.kind in ("launch", "reserve", "reload"))
    numbers = {number: position for position, number in enumerate(requests, 1)}
    return tuple(action._replace(number=numbers.get(action.number, 0)) for action in actions)


def _launch(drawer: _Drawer) -> None:
    rng = drawer.rng
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        drawer.number += 1
        timeout = rng.choice((0.05, 0.5, 2.0, 10.0, 10.0))
        drawer.actions.append(Action(drawer.at, "launch", drawer.number, timeout))
        if rng.random() < 0.25:
            _cancel(drawer, drawer.number, is_job=True)


def _cancel(drawer: _Drawer, number: int, *, is_job: bool) -> None:
    rng = drawer.rng
    at = drawer.at + rng.choice((0.0, 0.002, 0.05, 0.5, 3.0)) * rng.random()
    flag = rng.random() < 0.3 and is_job
    drawer.actions.append(Action(at, "cancel", number, flag=flag))


_FOLLOW = ("start", "start", "start", "release", "cancel", "ask", "ask", "start again", "ask again", "release", "spare")


def _reserve(drawer: _Drawer) -> None:
    rng = drawer.rng
    for _ in range(rng.choice((1, 1, 2, 3))):
        drawer.number += 1
        then = tuple(
            (rng.choice((0.0, 0.01, 0.3, 2.0)) * rng.random(), rng.choice(_FOLLOW)) for _ in range(rng.randint(0, 3))
        )
        timeout = rng.choice((0.0, 0.5, 2.0, 10.0))
        drawer.actions.append(Action(drawer.at, "reserve", drawer.number, timeout, then=then))
        if rng.random() < 0.2:
            _cancel(drawer, drawer.number, is_job=False)
        if rng.random() < 0.15:
            drawer.actions.append(Action(drawer.at + rng.random(), "release", drawer.number))


def _resize(drawer: _Drawer) -> None:
    rng = drawer.rng
    count = rng.choice((0, 1, 2, 4))
    most = None if rng.random() < 0.5 else count + rng.choice((0, 2))
    drawer.actions.append(Action(drawer.at, "resize", count=count, most=most))


def _reload(drawer: _Drawer) -> None:
    rng = drawer.rng
    if rng.random() < 0.7:
        drawer.actions.append(Action(drawer.at, "deploy", count=rng.randint(0, 3)))
    for _ in range(rng.choice((1, 1, 2))):
        drawer.number += 1
        drawer.actions.append(Action(drawer.at + 0.001, "reload", drawer.number))
        if rng.random() < 0.3:  # it is given up while it waits, loads or is proven, or when it is over
            seconds = rng.choice((0.0, 0.1, 0.5, 3.0)) * rng.random()
            drawer.actions.append(Action(drawer.at + 0.001 + seconds, "give up", drawer.number))


def _deploy(drawer: _Drawer) -> None:
    drawer.actions.append(Action(drawer.at, "deploy", count=drawer.rng.randint(0, 3)))


def _cancel_all(drawer: _Drawer) -> None:
    rng = drawer.rng
    for _ in range(rng.choice((1, 2))):
        action = Action(drawer.at, "cancel all", flag=rng.random() < 0.5, count=int(rng.random() < 0.5))
        drawer.actions.append(action)
        drawer.at += rng.random() ** 3


def _simple(kind: str, *seconds: float) -> object:
    def draw(drawer: _Drawer) -> None:
        drawer.actions.append(Action(drawer.at, kind, seconds=drawer.rng.choice(seconds)))

    return draw


_KINDS = {
    "launch": (6, _launch),
    "reserve": (4, _reserve),
    "resize": (2, _resize),
    "reload": (3, _reload),
    "deploy": (1, _deploy),
    "cancel all": (1, _cancel_all),
    "lose launcher": (2, _simple("lose launcher", 0.0)),
    "kill idle": (1, _simple("kill idle", 0.0, 0.2)),
    "pause": (1, _simple("pause", 0.01, 1.0, 30.0)),
    "no fds": (1, _simple("no fds", 0.05, 1.0)),
}


def _draw_end(drawer: _Drawer) -> None:
    """Close in the end, with or without a rest or a drain before."""
    rng = drawer.rng
    at, actions = drawer.at, drawer.actions
    kind = rng.random()
    if kind < 0.2:
        actions.append(Action(at + 1.0, "calm"))
        at += 300.0
        actions.append(Action(at, "rest"))
        if rng.random() < 0.5:
            actions.append(Action(at + 0.5, "resize", count=rng.choice((4, 5)), most=9))
            at += 0.5 + rng.random() * 0.3
            actions.append(Action(at, "quiet drain", seconds=60.0))
            at += 3.0
            actions.append(Action(at, "is empty"))
    elif kind < 0.55:
        actions.append(Action(at + rng.random(), "drain", seconds=rng.choice((0.0, 0.5, 5.0, 60.0))))
        at += rng.choice((0.1, 2.0, 100.0))
    actions.append(Action(at + rng.random() * 2.0, "close", flag=rng.random() < 0.3))
    if rng.random() < 0.2:
        actions.append(Action(at + 2.0 + rng.random(), "close", flag=rng.random() < 0.5))

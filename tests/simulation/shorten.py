"""Find the shortest history that shows the same violation: without actions first, then without faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from greenroom.options import PoolOptions

from .lives import Result, live
from .plans import Plan

__all__ = ["as_text", "shorten"]


def shorten(result: Result) -> Result:
    """Drop whatever can be dropped without losing the violation."""
    while True:
        for plan in _shorter(result.plan):
            tried = live(plan)
            if tried.oracle == result.oracle:
                result = tried
                break
        else:
            return result


def _shorter(plan: Plan) -> Iterator[Plan]:
    actions = plan.actions
    size = len(actions) // 2
    while size:
        for begin in range(0, len(actions), size):
            yield replace(plan, actions=actions[:begin] + actions[begin + size :])
        size //= 2
    for number, action in enumerate(actions):
        if action.then:
            less = action._replace(then=action.then[:-1])
            yield replace(plan, actions=(*actions[:number], less, *actions[number + 1 :]))
    for fault in plan.weights:
        yield plan.without(fault)
    for name in PoolOptions.__dataclass_fields__:
        default = PoolOptions.__dataclass_fields__[name].default
        if getattr(plan.options, name) != default and name not in ("num_idle_processes", "max_idle_processes"):
            yield replace(plan, options=replace(plan.options, **{name: default}))
    if plan.lag:
        yield replace(plan, lag=0.0)


def as_text(plan: Plan) -> str:
    """Return a plan as text."""
    lines = [f"seed {plan.seed}, pace {plan.pace:g}, lag {plan.lag:g}, faults {plan.weights}"]
    defaults = PoolOptions.__dataclass_fields__
    changed = {name: getattr(plan.options, name) for name in defaults}
    lines.append(f"options { ({name: value for name, value in changed.items() if value != defaults[name].default}) }")
    for action in plan.actions:
        fields = {name: value for name, value in action._asdict().items() if value and name not in ("at", "kind")}
        lines.append(f"  {action.at:9.4f} {action.kind} {fields or ''}")
    return "\n".join(lines)

"""The script: what the model of this directory answers. Pure, and the same every time.

A request is looked at as a `Moment`: what has just happened, and which tools the model may call. A tool's result is
spoken as it is; what the caller said is looked up in `RULES`; when nothing was said, the caller is greeted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Call", "Moment", "Say", "answer"]

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
NUMBERS = {word: number for number, word in enumerate(_WORDS)}


class Say(NamedTuple):
    """The model speaks."""

    text: str


class Call(NamedTuple):
    """The model calls a tool."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Moment:
    """What a model knows when it is asked: at most one of `said` and `result` is what happened last."""

    tools: frozenset[str] = field(default_factory=frozenset)
    may_call: bool = True
    said: str | None = None
    result: str | None = None
    result_of: str | None = None


def answer(moment: Moment) -> Say | Call:
    """What the model does next."""
    if moment.result is not None:
        return Say(CLOSINGS.get(moment.result_of or "", moment.result))
    if moment.may_call and moment.said is not None:
        return _reply(moment.said, moment.tools)
    return Say(next((text for tool, text in OPENINGS if tool in moment.tools), "Hello. How can I help?"))


def _reply(said: str, tools: frozenset[str]) -> Say | Call:
    for rule in RULES:
        if rule.tool in tools and (found := re.search(rule.pattern, said)):
            return Call(rule.tool, rule.arguments(found.groupdict()))
    for pattern, text in REMARKS:
        if re.search(pattern, said):
            return Say(text)
    return Say("Sorry, I did not understand.")


def _number(word: str) -> int:
    return 1 if word in ("a", "an") else NUMBERS[word]


def _dishes(words: Mapping[str, str]) -> dict[str, Any]:
    found = re.findall(r"(\w+) (pizza|salad|ice cream|coffee)s?", words["dishes"])
    return {"dishes": [{"dish": dish, "count": _number(count)} for count, dish in found]}


def _table(words: Mapping[str, str]) -> dict[str, Any]:
    return {"people": _number(words["people"]), "hour": _number(words["hour"]) + 12}


def _name(words: Mapping[str, str]) -> dict[str, Any]:
    return {"name": words["name"].title()}


def _phone(words: Mapping[str, str]) -> dict[str, Any]:
    return {"phone": "".join(str(NUMBERS[digit]) for digit in words["phone"].split())}


def _none(words: Mapping[str, str]) -> dict[str, Any]:
    return {}


class _Rule(NamedTuple):
    tool: str
    pattern: str
    arguments: Callable[[Mapping[str, str]], dict[str, Any]] = _none


# The first rule whose tool is there and whose pattern is in what was said.
RULES = (
    _Rule("to_reservation", r"book a table"),
    _Rule("to_takeaway", r"order some food"),
    _Rule("to_checkout", r"that is all"),
    _Rule("book_table", r"a table for (?P<people>\w+) people at (?P<hour>\w+)", _table),
    _Rule("add_dishes", r"(?P<dishes>.*(pizza|salad|ice cream|coffee).*)", _dishes),
    _Rule("set_name", r"my name is (?P<name>\w+)", _name),
    _Rule("set_phone", r"my number is (?P<phone>[\w ]+)", _phone),
    _Rule("place_order", r"yes that is right"),
    _Rule("opening_hours", r"what time"),
    _Rule("end_call", r"goodbye|that is all"),
)

# What an agent says first, told by a tool that it has and the ones below it have not.
OPENINGS = (
    ("to_reservation", "Good evening. A table, or takeaway?"),
    ("book_table", "For how many, and when?"),
    ("add_dishes", "What would you like?"),
    ("place_order", "May I have your name?"),
    ("opening_hours", "The restaurant is closed. May I have your name?"),
)

# Results that are not meant for the caller's ear.
CLOSINGS = {"end_call": "Goodbye."}

REMARKS = (
    (
        r"tell me a joke",
        "A waiter walks into a bar. He takes the orders, he brings the drinks, and nobody laughs at all.",
    ),
    (r"what do you have", "We have pizza, salad, ice cream and coffee."),
    (r"hello|good evening", "Hello."),
    (r"no that is wrong", "Then please tell me again."),
)

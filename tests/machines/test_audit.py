"""The audit finds each fault, and no others."""

from __future__ import annotations

import pytest
from machines.audit import Began, Told, faults

A, B = ("a", "1"), ("b", "1")


def told(status: int | None, worker: str | None = "a", *, key: str = "call", id: str = "a.1") -> Told:
    body = {"id": id} if status == 201 else {"error": {"type": "no_capacity"}}
    return Told(key, status, body, worker, 0.0, 1.0)


def began(place: tuple[str, str] = A, *, key: str = "call", id: str = "a.1") -> Began:
    return Began(key, id, place)


JOB = ("call", "a.1")


@pytest.mark.parametrize(
    ("answers", "runs", "reported"),
    [
        ([told(201)], [began()], {A: [JOB], B: []}),
        ([told(503)], [], {A: [], B: []}),
        ([told(201), told(409)], [began()], {A: [JOB], B: []}),
        ([told(None)], [], {A: [], B: []}),
        ([told(502)], [began(B)], {A: []}),  # B has died, and the session with it
        ([], [began()], {A: [JOB]}),  # past HAProxy
    ],
)
def test_nothing_is_wrong(
    answers: list[Told], runs: list[Began], reported: dict[tuple[str, str], list[tuple[str, str]]]
) -> None:
    assert faults(answers, runs, reported, {}) == []


@pytest.mark.parametrize(
    ("answers", "runs", "reported", "fault"),
    [
        ([told(201)], [began(), began(B)], {A: [JOB], B: [JOB]}, "began 2 times"),
        ([told(201), told(201)], [began()], {A: [JOB]}, "accepted 2 times"),
        ([told(201)], [], {A: []}, "did not run"),
        ([told(503)], [began()], {A: [JOB]}, "was told no"),
        ([told(404)], [began()], {}, "was told no"),
        ([told(504)], [began()], {A: [JOB]}, "ran on a worker that lives"),
        ([told(None)], [began()], {A: [JOB]}, "ran on a worker that lives"),
        ([told(201, id="a.2")], [began()], {A: [JOB]}, "began as a.1"),
        ([told(201)], [began()], {A: []}, "does not report it"),
        ([], [], {A: [JOB]}, "never began"),
    ],
)
def test_each_fault_is_found(
    answers: list[Told],
    runs: list[Began],
    reported: dict[tuple[str, str], list[tuple[str, str]]],
    fault: str,
) -> None:
    (found,) = faults(answers, runs, reported, {})
    assert fault in found


def test_a_session_may_die_with_its_worker_before_its_first_line() -> None:
    assert faults([told(201)], [], {B: []}, {"a": 2.0}) == []
    assert faults([told(201)], [], {B: []}, {"a": 0.5}) != [], "that was another start of it"
    assert faults([told(201)], [], {B: []}, {"b": 2.0}) != []

"""What the LiveKit source decides, without a socket: phases, load, waits, tokens, settings, leases."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import itertools
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import agent
from support import STATS

import greenroom
from greenroom import ExitReport
from greenroom.backoff import backoff
from greenroom.exit_report import Timings
from greenroom.integrations.livekit.job_order import Acceptance
from greenroom.integrations.livekit.job_source.job_table import Do, Event, JobTable, Phase, react
from greenroom.integrations.livekit.job_source.leases import Holding, Lease, LeaseBook
from greenroom.integrations.livekit.job_source.livekit_protocol import ProtocolError, accepted, parse, register
from greenroom.integrations.livekit.job_source.load_report import HIGHEST_LOAD, AppLoad, Load, load_of
from greenroom.integrations.livekit.job_source.registrations import ConfigError, registrations
from greenroom.integrations.livekit.job_source.restart import may_restart, status_of
from greenroom.integrations.livekit.job_source.tokens import Signer, claims_of
from greenroom.integrations.livekit.options import LiveKitOptions

SERVER_LIMIT = 0.7
"""``agents.target_load``: at or above it a LiveKit server dispatches nothing."""
ENVIRONMENT = {"LIVEKIT_URL": "wss://a.example", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "secret"}


# --- the phases of a job --------------------------------------------------------------------------


def test_W1_whatever_comes_a_job_starts_only_after_it_was_offered_and_accepted() -> None:
    for phase, event in itertools.product(Phase, Event):
        _, do = react(phase, event)
        assert (do is Do.START) == (phase is Phase.ACCEPTED and event is Event.ASSIGNMENT)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_W1_any_sequence_of_messages_starts_a_job_at_most_once_per_acceptance(events: list[Event]) -> None:
    table, accepted = JobTable(), False
    for event in events:
        do = table.on("job", event)
        if do is Do.ANSWER_YES:
            accepted = True
        elif do is Do.START:
            assert accepted
            accepted = False
        elif do is Do.RELEASE:
            accepted = False


def test_W1_every_assignment_that_is_not_carried_out_is_refused_and_changes_nothing() -> None:
    for phase in set(Phase) - {Phase.ACCEPTED, Phase.EXPIRED}:
        assert react(phase, Event.ASSIGNMENT) == (phase, Do.REFUSE)


def test_W1_an_assignment_that_is_late_is_told_to_have_failed_once() -> None:
    assert react(Phase.EXPIRED, Event.ASSIGNMENT) == (Phase.ENDED, Do.REPORT_FAILURE)


def test_W3_termination_in_each_phase() -> None:
    assert {phase: react(phase, Event.TERMINATION)[1] for phase in Phase} == {
        Phase.UNKNOWN: Do.IGNORE,
        Phase.OFFERED: Do.NOTHING,
        Phase.ACCEPTED: Do.RELEASE,
        Phase.LIVE: Do.CANCEL,
        Phase.REJECTED: Do.IGNORE,
        Phase.EXPIRED: Do.IGNORE,
        Phase.ENDED: Do.IGNORE,
    }


def test_jobs_that_are_over_are_forgotten_in_time() -> None:
    table = JobTable(remembered=2)
    for job_id in ("a", "b", "c"):
        for event in (Event.OFFER, Event.REJECT):
            table.on(job_id, event)
    assert [table.phase(job_id) for job_id in ("a", "b", "c")] == [Phase.UNKNOWN, Phase.REJECTED, Phase.REJECTED]


# --- load -----------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.data())
def test_a_worker_with_a_free_slot_stays_below_what_servers_dispatch_to(max_jobs: int, data: st.DataObject) -> None:
    jobs = data.draw(st.integers(0, max_jobs - 1))
    load = load_of(None, dataclasses.replace(STATS, jobs=jobs), max_jobs - jobs, 2.0)
    assert load.available
    assert load.value < SERVER_LIMIT


@pytest.mark.parametrize("reason", ["full", "draining", "breaker_open"])
def test_a_worker_that_cannot_take_a_session_is_full(reason: str) -> None:
    load = load_of(None, dataclasses.replace(STATS, not_ready_reason=reason), 10, 2.0)
    assert (load.available, load.value, load.problem) == (False, 1.0, reason)


def test_memory_and_whatever_else_closes_the_worker_make_it_full() -> None:
    assert not load_of("memory", STATS, 10, 2.0).available


@pytest.mark.parametrize(("wait", "is_available"), [(0.3, True), (2.0, True), (2.1, False), (None, False)])
def test_without_a_warm_process_it_is_available_if_one_will_be_there_in_time_but_asked_after_others(
    wait: float | None, is_available: bool
) -> None:
    stats = dataclasses.replace(STATS, not_ready_reason="warming", idle=0, expected_wait=wait)
    load = load_of(None, stats, 10, 2.0)
    assert load == Load(True, HIGHEST_LOAD, 0) if is_available else Load(False, 1.0, 0, "warming")


def test_an_apps_own_load_is_told_as_it_is_and_full_is_what_reaches_its_threshold() -> None:
    stats = dataclasses.replace(STATS, jobs=2)
    load = partial(AppLoad, active=2, reserved=0, idle=1)
    assert load_of(None, stats, 100, 2.0, load(0.69, 0.7)) == Load(True, 0.69, 2)
    assert load_of(None, stats, 100, 2.0, load(0.7, 0.7)) == Load(False, 0.7, 2, "load")
    assert load_of(None, stats, 100, 2.0, load(1.5, None)) == Load(True, 1.5, 2)
    assert load_of(None, stats, 100, 2.0, AppLoad(0.4, 0.7, 2, 2, 1)) == Load(False, 0.4, 2, "load")
    assert load_of(None, stats, 100, 2.0, AppLoad(0.0, 0.7, 0, 1, 1)) == Load(False, 0.0, 2, "load")
    assert load_of(None, stats, 100, 2.0, AppLoad(0.0, 0.7, 0, 1, 2)) == Load(True, 0.0, 2)


@pytest.mark.parametrize("reason", ["full", "draining", "breaker_open", "memory"])
def test_where_no_session_could_start_an_apps_load_opens_nothing(reason: str) -> None:
    app = AppLoad(0.0, None, 0, 0, 1)
    assert load_of(reason, STATS, 100, 2.0, app) == Load(False, 1.0, 0, reason)
    waiting = dataclasses.replace(STATS, not_ready_reason="warming", idle=0, expected_wait=0.3)
    assert load_of(None, waiting, 100, 2.0, app) == Load(True, HIGHEST_LOAD, 0)
    assert load_of(None, waiting, 100, 2.0, AppLoad(0.9, 0.8, 1, 0, 1)) == Load(False, 0.9, 0, "load")


# --- waits ----------------------------------------------------------------------------------------


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_W5_waits_are_bounded_and_jittered(attempt: int, chance: float) -> None:
    wait = partial(backoff, attempt, first=0.5, longest=10.0)
    assert 0.25 <= wait(chance=chance) <= 10.0
    assert wait(chance=0.0) == wait() / 2


def test_W5_waits_grow() -> None:
    waits = [backoff(attempt, first=0.5, longest=10.0) for attempt in (1, 2, 3, 4, 5, 6, 7)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


# --- messages and tokens --------------------------------------------------------------------------


def test_W1_garbage_is_told_from_a_message_of_a_later_version() -> None:
    with pytest.raises(ProtocolError, match="no message"):
        parse(b"\xff\xff garbage")
    assert parse(b"") is None
    assert parse(b"\x9a\x06\x00") is None  # field 99, which nobody knows yet


@given(st.binary(max_size=200))
def test_W1_any_bytes_are_a_message_or_an_error_of_ours(data: bytes) -> None:
    with suppress(ProtocolError):
        parse(data)


def test_a_workers_token_says_what_servers_ask_for() -> None:
    token = Signer("key", "secret").worker(now=1000.0)
    assert claims_of(token) == {"sub": "", "video": {"agent": True}, "iss": "key", "nbf": 970, "exp": 1600}
    text, _, signature = token.rpartition(".")
    expected = hmac.new(b"secret", text.encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "=") == expected


def test_a_token_made_again_has_the_same_grants_and_a_new_life() -> None:
    video = {"roomJoin": True, "room": "r", "agent": True, "hidden": False}
    old = Signer("server-key", "x").sign({"sub": "agent-1", "kind": "agent", "video": video}, 0.0, 60)
    again = claims_of(Signer("key", "secret").again(old, now=10_000.0))
    assert again == {"sub": "agent-1", "kind": "agent", "video": video, "iss": "key", "nbf": 9970, "exp": 13_600}


@pytest.mark.parametrize("text", ["", "a", "a.b.c", "a.W10.c"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a token"):
        claims_of(text)


# --- settings -------------------------------------------------------------------------------------


def test_settings_come_before_the_environment_and_that_before_the_app() -> None:
    manifest = {"ws_url": "ws://of-the-app:1", "agent_name": "of-the-app", "worker_type": "publisher"}
    (found,) = registrations(LiveKitOptions(), manifest, ENVIRONMENT)
    assert (found.server.url, found.agent_name, found.kind) == ("wss://a.example", "of-the-app", "publisher")
    options = LiveKitOptions(livekit_url="http://b:7880/x/", livekit_agent_name="mine", livekit_type="room")
    (found,) = registrations(options, manifest, ENVIRONMENT)
    assert (found.server.agent_url, found.server.url) == ("http://b:7880/x/agent", "ws://b:7880/x/")
    assert (found.agent_name, found.kind) == ("mine", "room")


def test_several_servers_and_several_names() -> None:
    options = LiveKitOptions(livekit_url="ws://a, ws://b", livekit_api_key="k1,k2", livekit_agent_name="x,y")
    found = registrations(options, {}, ENVIRONMENT)
    assert [(each.server.url, each.server.api_key, each.agent_name) for each in found] == [
        ("ws://a", "k1", "x"),
        ("ws://a", "k1", "y"),
        ("ws://b", "k2", "x"),
        ("ws://b", "k2", "y"),
    ]


def test_a_secret_may_hold_commas() -> None:
    options = LiveKitOptions(livekit_url="ws://a,ws://b", livekit_api_secret="one, two, three")
    assert {each.server.api_secret for each in registrations(options, {}, ENVIRONMENT)} == {"one, two, three"}
    (found,) = registrations(LiveKitOptions(livekit_api_secret="one,two"), {}, ENVIRONMENT)
    assert found.server.api_secret == "one,two"


@pytest.mark.parametrize(
    ("options", "environment", "error"),
    [
        (LiveKitOptions(), {}, r"livekit_url \(LIVEKIT_URL\), livekit_api_key"),
        (LiveKitOptions(livekit_url="a.example"), ENVIRONMENT, "it must be like wss://"),
    ],
)
def test_what_is_missing_or_wrong_is_named(options: LiveKitOptions, environment: dict[str, str], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        registrations(options, {}, environment)


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t\n"])
def test_blanks_around_what_leads_to_a_server_do_not_count(end: str) -> None:
    padded = {name: f"{end}{value}{end}" for name, value in ENVIRONMENT.items()}
    manifest = dict(zip(("ws_url", "api_key", "api_secret"), padded.values(), strict=True))
    url, key, secret = padded.values()
    options = LiveKitOptions(livekit_url=url, livekit_api_key=key, livekit_api_secret=secret)
    (expected,) = registrations(LiveKitOptions(), {}, ENVIRONMENT)
    assert registrations(LiveKitOptions(), {}, padded) == [expected]
    assert registrations(LiveKitOptions(), manifest, {}) == [expected]
    assert registrations(LiveKitOptions(), manifest, dict.fromkeys(ENVIRONMENT, end)) == [expected]
    assert registrations(options, {}, {}) == [expected]


@pytest.mark.parametrize("name", ENVIRONMENT)
@pytest.mark.parametrize("mark", ["\n", "\r\n", "\t", "\0"])
def test_no_control_character_leads_to_a_server(name: str, mark: str) -> None:
    broken = f"{ENVIRONMENT[name][:6]}{mark}hush"
    with pytest.raises(ConfigError, match=name.lower()) as raised:
        registrations(LiveKitOptions(), {}, ENVIRONMENT | {name: broken})
    assert "hush" not in str(raised.value)


def test_a_proxy_is_the_apps_own_or_left_to_the_environment() -> None:
    mine, ours = "http://user:hush@mine:3128", "http://ours:3128"
    for environment, proxy in (({}, mine), ({"HTTPS_PROXY": ours}, mine), ({"HTTP_PROXY": mine}, None)):
        (found,) = registrations(LiveKitOptions(), {"http_proxy": mine}, ENVIRONMENT | environment)
        assert found.server.proxy == proxy
        assert "hush" not in repr(found)
    (found,) = registrations(LiveKitOptions(), {}, ENVIRONMENT | {"HTTPS_PROXY": ours})
    assert found.server.proxy is None


def test_a_secret_is_not_shown() -> None:
    options = LiveKitOptions(livekit_api_secret="hush")
    (found,) = registrations(options, {}, ENVIRONMENT)
    assert "hush" not in f"{options} {found!r} {found.server!r}"


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "reason", "status", "restarts"),
    [
        ("succeeded", "completed", "success", False),
        ("cancelled", "cancelled", "success", False),
        ("cancelled", "drained", "failed", False),
        ("failed", "raised", "failed", True),
        ("failed", "exited", "failed", True),
        ("failed", "signaled", "failed", True),
        ("killed", "stalled", "failed", True),
        ("killed", "memory_limit", "failed", True),
        ("killed", "oom_killed", "failed", True),
        ("failed", "start_timeout", "failed", True),
        ("killed", "job_timeout", "failed", False),
        ("killed", "shutdown_timeout", "failed", False),
    ],
)
def test_what_an_end_means(outcome: str, reason: str, status: str, restarts: bool) -> None:
    ended = ExitReport(outcome, reason, "in words", Timings(0.0))  # type: ignore[arg-type]
    assert status_of(ended) == (status, "" if status == "success" else f"{reason}: in words")
    options = LiveKitOptions(livekit_restart="on_crash", livekit_max_restarts=2)
    assert [may_restart(options, ended, count) for count in (0, 1, 2)] == [restarts, restarts, False]
    assert not may_restart(LiveKitOptions(), ended, 0)


# --- leases ---------------------------------------------------------------------------------------


def test_a_lease_says_what_it_was_told() -> None:
    lease = Lease(7, (Holding("AJ_1", "room", "AD_1", "agent-AJ_1", 1),))
    assert Lease.decode(lease.encode()) == lease


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"greenroom": 2}', '{"greenroom": 1, "beat": 1, "jobs": [1]}']
)
def test_what_is_no_lease_is_left_alone(text: str) -> None:
    assert Lease.decode(text) is None


def test_a_worker_is_gone_when_its_lease_stands_still() -> None:
    book = LeaseBook(timeout=10.0)
    assert [book.observe({"a": "1", "b": str(now)}, now) for now in (0.0, 3.0, 6.0, 9.0)] == [[]] * 4
    assert book.observe({"a": "1", "b": "x"}, 12.0) == ["a"]
    assert book.observe({"a": "2", "b": "y"}, 14.0) == []  # it was only slow
    assert book.observe({"b": "y"}, 17.0) == []


def test_one_who_was_away_himself_gives_everybody_the_whole_time_again() -> None:
    book = LeaseBook(timeout=10.0)
    book.observe({"a": "1"}, 0.0)
    assert book.observe({"a": "1"}, 1000.0) == []
    assert book.observe({"a": "1"}, 1004.0) == []
    assert book.observe({"a": "1"}, 1008.0) == []
    assert book.observe({"a": "1"}, 1010.0) == ["a"]


# --- registration ---------------------------------------------------------------------------------


def test_a_worker_registers_with_its_deployment_and_the_version_of_livekit_agents() -> None:
    manifest = {"livekit_agents_version": "1.8.9", "deployment": "green"}
    (from_app,) = registrations(LiveKitOptions(), manifest, ENVIRONMENT)
    assert (from_app.deployment, from_app.version) == ("green", "1.8.9")
    environment = {**ENVIRONMENT, "LIVEKIT_AGENT_DEPLOYMENT": "blue"}
    (from_environment,) = registrations(LiveKitOptions(), manifest, environment)
    assert from_environment.deployment == "blue"
    message = agent.WorkerMessage.FromString(register("room", "greeter", "1.8.9", {}, "blue"))
    assert (message.register.deployment, message.register.version) == ("blue", "1.8.9")
    (plain,) = registrations(LiveKitOptions(), {}, ENVIRONMENT)
    assert (plain.deployment, plain.version) == ("", greenroom.__version__)


@pytest.mark.parametrize("name", ["a_b", "a b", "x" * 65, "line\nfeed"])
def test_a_deployment_that_a_server_refuses_without_a_word_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="LIVEKIT_AGENT_DEPLOYMENT is"):
        registrations(LiveKitOptions(), {}, {**ENVIRONMENT, "LIVEKIT_AGENT_DEPLOYMENT": name})


def test_an_agent_carries_its_name_unless_the_app_gives_another() -> None:
    def sent(**attributes: str) -> dict[str, str]:
        message = agent.WorkerMessage.FromString(accepted("AJ_1", Acceptance(attributes=attributes), "greeter"))
        return dict(message.availability.participant_attributes)

    assert sent(floor="1") == {"lk.agent.name": "greeter", "floor": "1"}
    assert sent(**{"lk.agent.name": "mine"}) == {"lk.agent.name": "mine"}

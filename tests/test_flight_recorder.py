"""The flight recorder's parts: what it withholds, where it writes, and what it does when it cannot."""

from __future__ import annotations

import fcntl
import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from simulation.flights import record
from simulation.plans import draw_plan

from greenroom import ProcessPool
from greenroom.app_facts import AppFacts
from greenroom.errors import AppLoadError, ErrorInfo, GreenroomError, OptionError
from greenroom.options import PoolOptions
from greenroom.pool.core import states
from greenroom.pool.core import vocabulary as v
from greenroom.pool.core.core import PoolCore
from greenroom.pool.core.effective_options import EffectiveOptions
from greenroom.pool.flight_recorder import reader, storage
from greenroom.pool.flight_recorder.event_rows import EFFECT_ROWS, EVENT_ROWS, effects, happenings
from greenroom.pool.flight_recorder.explain import decisions
from greenroom.pool.flight_recorder.field_kinds import BadRow, kind_of
from greenroom.pool.flight_recorder.phrases import EFFECTS, REASONS
from greenroom.pool.flight_recorder.reader import lines_of, written_out
from greenroom.pool.flight_recorder.recorder import Recorder
from greenroom.pool.flight_recorder.replay import Replay
from greenroom.pool.flight_recorder.storage import Folder, Memory, crashed_in, home

MakeApp = Callable[[str], str]
ERROR = ErrorInfo("ValueError", "sesame", "sesame")
FACTS = AppFacts(True, {"key": "sesame"}, 1.0, {"livekit_api_secret": ["sesame", "sesame"], "idle_ttl": [5, "idle=5"]})


# --- what is kept --------------------------------------------------------------------------------


def test_all_events_and_effects_have_a_row() -> None:
    assert {form.made for form in happenings.values()} == set(get_args(v.Happening))
    assert set(EFFECTS) <= set(effects)
    assert not {"n", "now", "at", "effects", "effect", "raised", "next_deadline"} & {
        name for form in happenings.values() for name in form.names
    }


@pytest.mark.parametrize(
    "secret",
    [
        v.Launch(1, "job", b"sesame", 1.0),
        v.Reserve(1, "job", b"sesame", 1.0),
        v.LaunchReserved(1, "job", b"sesame", 1.0),
        v.LauncherLoaded(1, FACTS, "digest"),
        v.LauncherFailed(1, AppLoadError("sesame")),
        v.LauncherDumped(1, "sesame"),
        v.LauncherBroke(1, "sesame"),
        v.LauncherLost(1, "it was killed", "sesame"),
        v.Hello("1-1", FACTS),
        v.PrewarmFailed("1-1", ERROR),
        v.Answered("1-1", 1, False, "sesame", body=b"sesame"),
        v.Ended("1-1", "raised", False, ERROR, b"sesame"),
        v.CleaningUp("1-1", cut="sesame", stacks="sesame"),
        v.Nonsense("1-1", "sesame"),
        v.Dumped("1-1", "sesame"),
        v.Died("1-1", (v.Ended("1-1", "raised", False, ERROR, b"sesame"), v.Nonsense("1-1", "sesame"))),
        v.Start("1-1", "job", b"sesame"),
        v.Ask("1-1", 1, "request", "job", "http", b"sesame"),
        v.AskResident(1, "load", b"sesame", 1.0),
        v.SetNews("job", "job", b"sesame"),
        v.Inform("1-1", (v.News("job", "job", b"sesame"),)),
        v.Shutdown("1-1", "sesame", True),
        v.Refused(1, GreenroomError("sesame")),
        v.AppAnswered(1, False, "sesame", body=b"sesame"),
        v.Log(v.ERROR, "sesame", {"event": "x", "cause": "sesame"}),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_an_app_or_a_job_says_is_withheld(secret: Any) -> None:
    row = (EVENT_ROWS.get(type(secret)) or EFFECT_ROWS[type(secret)])(secret)
    assert "sesame" not in msgspec.json.encode(row).decode()


def test_what_an_app_sets_of_the_pool_is_kept() -> None:
    read = happenings["Hello"].read({"process": "1-1", "facts": [True, 1.0, {"idle_ttl": [5, "idle=5"]}, ["load"]]})
    assert read.facts == AppFacts(True, {}, 1.0, {"idle_ttl": [5, "idle=5"]}, ["load"])
    assert json.loads(msgspec.json.encode(EVENT_ROWS[v.Hello](v.Hello("1-1", FACTS))))[2][2] == {
        "idle_ttl": [5, "idle=5"]
    }


def test_a_long_text_is_cut_alike_everywhere() -> None:
    long = "j" * 10_000
    launched = EVENT_ROWS[v.Launch](v.Launch(1, long, b"", 1.0, long, {long: long}))
    started = EVENT_ROWS[v.Started](v.Started("1-1", long))
    assert len(msgspec.json.encode(launched)) < 1_500
    assert launched[2] == started[2]


def test_a_field_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(TypeError, match="new of Launch: the flight recorder has no kind for 'Secret'"):
        kind_of("Secret", "new", "Launch", "event")


def test_every_event_of_a_table_has_a_reason() -> None:
    kinds = (states.ProcessEvent, states.JobEvent, states.LauncherEvent, states.GenerationEvent, states.AskEvent)
    assert set(REASONS) == {event for kind in kinds for event in kind}


# --- where it is kept ----------------------------------------------------------------------------


def _core() -> PoolCore:
    return PoolCore(EffectiveOptions(PoolOptions(), frozenset()), offset=1_700_000_000.0)


def _tick(recorder: Recorder, core: PoolCore, count: int = 1) -> None:
    for _ in range(count):
        recorder.note(v.Cancel(1, "x" * 200), 1.0, core.handle(v.Cancel(1, "x" * 200), 1.0))


def test_a_folder_is_private_and_gone_when_it_is_closed(tmp_path: Path) -> None:
    core, folder = _core(), Folder(tmp_path)
    recorder = Recorder(core, folder, 2**20, lambda fn: fn())
    _tick(recorder, core, 10_000)
    names = [file.name for file in folder.path.iterdir()]
    assert 2 <= len(names) <= 4
    assert sum(file.stat().st_size for file in folder.path.iterdir()) <= 2**20
    assert {oct(path.stat().st_mode & 0o777) for path in (home(tmp_path), folder.path)} == {"0o700"}
    assert {oct(file.stat().st_mode & 0o777) for file in folder.path.iterdir()} == {"0o600"}
    assert crashed_in(tmp_path) == []
    recorder.close()
    assert not home(tmp_path).exists()


def test_the_latest_crashes_are_kept(tmp_path: Path) -> None:
    folders = []
    for _ in range(storage.KEPT + 2):
        folder = Folder(tmp_path)
        Recorder(_core(), folder, 2**20, lambda fn: fn())
        folders.append(folder)
    assert len({folder.path for folder in folders}) == len(folders)
    living = folders.pop(0)
    for folder in folders:
        fcntl.flock(folder._lock, fcntl.LOCK_UN)  # as the kernel does when its process dies
    found = crashed_in(tmp_path)
    assert [one.path.name for one in found] == [
        folder.path.name.replace("live", "crashed") for folder in reversed(folders[-storage.KEPT :])
    ]
    assert all(one.is_found_now and one.pid == os.getpid() for one in found)
    assert not any(one.is_found_now for one in crashed_in(tmp_path))
    assert {path.name for path in home(tmp_path).iterdir()} == {living.path.name, *(one.path.name for one in found)}
    assert lines_of([(found[0].path / "000001.rows").read_bytes()])
    for folder in (living, *folders):
        os.close(folder._lock)
    _close_fds_in(tmp_path)


def _close_fds_in(folder: Path) -> None:
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith(str(folder)):
                os.close(int(fd))
        except OSError:
            continue


@pytest.mark.parametrize("trap", ["a link", "open to others", "a file"])
def test_a_folder_that_could_be_anybodys_is_not_used(tmp_path: Path, trap: str) -> None:
    if trap == "a link":
        (tmp_path / "other").mkdir(mode=0o700)
        home(tmp_path).symlink_to(tmp_path / "other")
    elif trap == "a file":
        home(tmp_path).write_text("")
    else:
        home(tmp_path).mkdir()
        home(tmp_path).chmod(0o770)
    with pytest.raises(OSError, match="must be a folder of this user"):
        Folder(tmp_path)
    assert crashed_in(tmp_path) == []


def test_a_file_that_is_shortened_ends_nobody(tmp_path: Path) -> None:
    """A session runs as the same user, and could do that. What comes later is still recorded."""
    core, folder = _core(), Folder(tmp_path)
    recorder = Recorder(core, folder, 2**20, lambda fn: fn())
    _tick(recorder, core)
    for file in folder.path.iterdir():
        os.truncate(file, 10)
    _tick(recorder, core)
    assert recorder.is_on
    recorder.close()


def test_a_recorder_without_room_stops_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """As on a full disk: /dev/full takes nothing."""

    class Full(Memory):
        def open(self, number: int) -> int:
            return os.open("/dev/full", os.O_RDWR)

    core, turns = _core(), list[Callable[[], object]]()
    recorder = Recorder(core, Full(), 2**20, turns.append)
    assert not recorder.is_on
    _tick(recorder, core)
    assert recorder.parts() == []
    for turn in turns:
        turn()
    assert "the flight recorder failed, and records nothing from now on: [Errno 28]" in caplog.text
    recorder.close()


def test_a_state_that_does_not_fit_stops_it_and_names_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    core, turns = _core(), list[Callable[[], object]]()
    recorder = Recorder(core, Memory(), 10_000, turns.append)
    assert not recorder.is_on
    for turn in turns:
        turn()
    assert "Raise flight_recorder_mb" in caplog.text


@pytest.mark.parametrize("wrong", [-1, 0.1, 65, "8", True])
def test_a_size_that_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"flight_recorder_mb is .*from 0.25 to 64, or 0"):
        PoolOptions(flight_recorder_mb=wrong)


# --- the library ---------------------------------------------------------------------------------


async def test_a_pool_hands_out_its_recording(make_app: MakeApp, tmp_path: Path) -> None:
    source = "@app.entrypoint\nasync def entrypoint(ctx): return 'sesame'"
    async with ProcessPool(make_app(source), num_idle_processes=1, flight_recorder_dir=str(tmp_path)) as pool:
        report = await (await pool.launch("sesame", labels={"room": "hall"})).wait()
        assert report.result == "sesame"
        raw = b"".join([piece async for piece in pool.recording()])
    assert not home(tmp_path).exists()
    assert b"sesame" not in raw
    text = b"".join(written_out([raw]))
    launched = next(line for line in map(json.loads, text.splitlines()) if line.get("event") == "Launch")
    assert launched["labels"] == {"room": "hall"}
    replay = Replay(lines_of([text]))
    told = [decision for moment in replay.moments() for decision in decisions(moment)]
    assert replay.difference is None
    assert [one.after for one in told if one.job_id == report.job_id and one.who.startswith("job ")][-1] == "ENDED"


async def test_a_pool_without_a_recorder_says_so(make_app: MakeApp) -> None:
    app = make_app("@app.entrypoint\nasync def entrypoint(ctx): ...")
    async with ProcessPool(app, num_idle_processes=0, flight_recorder_mb=0) as pool:
        with pytest.raises(GreenroomError, match="nothing is recorded"):
            await anext(pool.recording())


# --- a stranger's recording ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_a_recording_that_was_tampered_with_is_refused_or_differs(seed: int) -> None:
    """Whatever stands in it: a replay ends, and with nothing but the error that a command tells."""
    rng = random.Random(seed)
    lines = b"".join(written_out([record(draw_plan(seed % 12), begin=rng.randrange(20))])).splitlines()
    assert len(lines) > 5
    for _ in range(25):
        tampered = list(lines)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(1, len(tampered))
            tampered[place] = msgspec.json.encode(_tampered(msgspec.json.decode(tampered[place]), rng))
        with suppress(BadRow):
            for moment in Replay(lines_of([b"\n".join(tampered) + b"\n"])).moments():
                list(decisions(moment))


_STRANGE: tuple[Any, ...] = (None, True, 0, -1, 2**70, 1e308, "", "x", "1-1", [], {}, [[]], "IDLE", 9_999)


def _tampered(value: Any, rng: random.Random) -> Any:
    """Return JSON with one part of it replaced, dropped or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        if rng.random() < 0.1:
            return {key: one for key, one in value.items() if key != name}
        return value | {name: _tampered(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], _tampered(value[place], rng), *value[place + rng.randrange(2) :]]
    return rng.choice(_STRANGE)


def test_sizes_of_a_recording_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    header = b'{"flight_recording":1,"form":"objects"}\n'
    with pytest.raises(BadRow, match="a line of more than"):
        list(lines_of([header, *([b"x" * 2**20] * 20)]))
    monkeypatch.setattr(reader, "MOST_BYTES", 10_000)
    with pytest.raises(BadRow, match="longer than"):
        list(lines_of([header, *([b'{"n":1,"lost":""}\n'] * 600)]))
    with pytest.raises(BadRow, match="the maximum of a pool"):
        happenings["Resize"].read({"num_idle_processes": 10**6, "max_idle_processes": None})


def test_a_recording_of_another_version_is_read_as_far_as_it_is_known() -> None:
    """Fields that only one of two versions has are not compared; an event that it does not know is named."""
    raw = record(draw_plan(3))
    text = b"".join(written_out([raw]))
    older = text.replace(b'"retried":', b'"was_retried":').replace(b'"is_settled":', b'"is_quite_settled":')
    replay = Replay(lines_of([older]))
    assert list(replay.moments())
    assert replay.difference is None
    newer = text.replace(b'"event":"Tick"', b'"event":"Cloned"')
    with pytest.raises(BadRow, match="there is no event 'Cloned' in this version of Greenroom"):
        list(Replay(lines_of([newer])).moments())

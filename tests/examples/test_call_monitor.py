"""The call monitor's parts, with the real model and the real recording."""

import asyncio
import hashlib
import json
import os
import selectors
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import vad
from audio import FRAME_SAMPLES, SAMPLE_RATE, Line, RecordingError, Samples, frames_of, read_recording
from monitor import RECORDING, CallMonitor, CallWishes
from vad import WINDOW_SECONDS, Spurt, TalkSpurts, VoiceDetector, VoiceModel

# The model smears an edge over a window or three, and closes its mouth later than the labels do.
TOLERANCE = 0.15


@pytest.fixture(scope="module")
def model() -> VoiceModel:
    return VoiceModel()


@pytest.fixture(scope="module")
def recording() -> Samples:
    return read_recording(RECORDING)


def labelled_speech() -> list[tuple[float, float]]:
    """When the caller really talks: labels that came with the speech, from no voice activity model."""
    lines = RECORDING.with_suffix(".lab").read_text().splitlines()
    return [(float(start), float(end)) for start, end, _ in (line.split("\t") for line in lines)]


def spurts_in(model: VoiceModel, samples: Samples) -> list[Spurt]:
    detector, spurts = VoiceDetector(model), TalkSpurts()
    likelihoods = [likelihood for frame in frames_of(samples) for likelihood in detector.feed(frame)]
    found = [spurts.push(likelihood) for likelihood in likelihoods]
    return [spurt for spurt in (*found, spurts.finish()) if spurt is not None]


def noise(kind: str, seconds: float = 8.0) -> Samples:
    """Sounds of a telephone line that are not talk."""
    clock = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    random = np.random.default_rng(7).standard_normal(len(clock))
    sound = {
        "silence": np.zeros(len(clock)),
        "hiss": random * 0.003,
        "loud noise": random * 0.1,
        "ringback": (np.sin(2 * np.pi * 440 * clock) + np.sin(2 * np.pi * 480 * clock)) * (clock % 6 < 2) * 0.2,
        "key tone": (np.sin(2 * np.pi * 770 * clock) + np.sin(2 * np.pi * 1336 * clock)) * 0.2,
        "clicks": (np.arange(len(clock)) % SAMPLE_RATE < 8) * 0.8,
        "mains hum": np.sin(2 * np.pi * 50 * clock) * 0.1,
    }[kind]
    return (sound * 32767).clip(-32768, 32767).astype(np.int16)


# The model


def test_model_is_the_one_that_silero_published() -> None:
    """The package is a copy by someone else; its model file must be that of silero-vad 6.2.3."""
    digest = hashlib.sha256(vad.model_path().read_bytes()).hexdigest()
    assert digest == "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"


def test_missing_model_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "MODEL_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(FileNotFoundError, match="a_package_that_is_not_there is not installed"):
        vad.model_path()


def test_spurts_are_where_the_caller_talks(model: VoiceModel, recording: Samples) -> None:
    found = spurts_in(model, recording)
    assert len(found) == len(labelled_speech()) == 3
    for (start, end), (true_start, true_end) in zip(found, labelled_speech(), strict=True):
        assert start == pytest.approx(true_start, abs=TOLERANCE)
        assert end == pytest.approx(true_end, abs=TOLERANCE)


def test_quiet_caller_is_heard(model: VoiceModel, recording: Samples) -> None:
    assert len(spurts_in(model, (recording // 10).astype(np.int16))) == 3


@pytest.mark.parametrize("kind", ["silence", "hiss", "loud noise", "ringback", "key tone", "clicks", "mains hum"])
def test_no_talk_in(model: VoiceModel, kind: str) -> None:
    assert spurts_in(model, noise(kind)) == []


def test_pauses_of_the_recording_are_no_talk(model: VoiceModel, recording: Samples) -> None:
    for start, end in ((0.0, 1.2), (4.3, 6.6), (17.2, 18.68)):
        assert spurts_in(model, recording[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]) == []


def test_detector_does_not_care_how_audio_is_cut(model: VoiceModel, recording: Samples) -> None:
    piece = recording[: 4 * SAMPLE_RATE]
    whole = VoiceDetector(model).feed(piece)
    by_frames = VoiceDetector(model)
    assert whole == [likelihood for frame in frames_of(piece) for likelihood in by_frames.feed(frame)]


def test_calls_do_not_hear_each_other(model: VoiceModel, recording: Samples) -> None:
    """The model is shared, its state is not: calls that take turns get what each would get alone."""
    speech, silence = recording[SAMPLE_RATE : 4 * SAMPLE_RATE], noise("silence", 3.0)
    talker, listener = VoiceDetector(model), VoiceDetector(model)
    turns = [(talker.feed(a), listener.feed(b)) for a, b in zip(frames_of(speech), frames_of(silence), strict=True)]
    assert [x for heard, _ in turns for x in heard] == VoiceDetector(model).feed(speech)
    assert [x for _, heard in turns for x in heard] == VoiceDetector(model).feed(silence)


def test_twenty_forked_processes_share_one_model() -> None:
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(RECORDING.parent),
    }
    script = Path(__file__).with_name("forked_calls.py")
    ran = subprocess.run(
        [sys.executable, script, "20"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer = json.loads(ran.stdout)
    assert answer["threads"] == 1
    assert [result["caller"] for result in answer["results"]] == [str(number) for number in range(20)]
    assert {json.dumps(result["talk_spurts"]) for result in answer["results"]} == {
        json.dumps([list(spurt) for spurt in spurts_in(VoiceModel(), read_recording(RECORDING))])
    }


# Spurts, from likelihoods


def spurts_of(windows: str, **settings: float) -> list[Spurt]:
    """Spurts of windows written as text: `#` is voice, `+` lies between the thresholds, `.` is none."""
    spurts = TalkSpurts(**settings)
    found = [spurts.push({"#": 0.9, "+": 0.4, ".": 0.1}[window]) for window in windows]
    return [spurt for spurt in (*found, spurts.finish()) if spurt is not None]


@pytest.mark.parametrize(
    ("windows", "spurts"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("." * 50, [], id="silence"),
        pytest.param("+" * 50, [], id="between-the-thresholds-starts-nothing"),
        pytest.param(".####################", [(1, 21)], id="call-ends-in-talk"),
        pytest.param("..##########...............", [(2, 12)], id="ends-at-the-last-voice-not-the-hangover"),
        pytest.param("##########++++++++++" + "." * 20, [(0, 20)], id="between-the-thresholds-goes-on"),
        pytest.param("##########......##########", [(0, 26)], id="short-silence-is-bridged"),
        pytest.param("##########" + "." * 13 + "##########", [(0, 10), (23, 33)], id="long-silence-is-not"),
        pytest.param("##.................##..........", [], id="clicks"),
    ],
)
def test_spurts_from_windows(windows: str, spurts: list[tuple[int, int]]) -> None:
    assert spurts_of(windows) == [
        Spurt(round(start * WINDOW_SECONDS, 3), round(end * WINDOW_SECONDS, 3)) for start, end in spurts
    ]


def test_hangover_and_shortest_spurt_can_be_set() -> None:
    assert len(spurts_of("##########......##########", hangover=0.1)) == 2
    assert len(spurts_of("##.................##..........", shortest=0.0)) == 2


# The recording, and its pace


def write_wav(path: Path, rate: int = SAMPLE_RATE, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate)
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.writeframes(bytes(width * channels * 100))
    return path


@pytest.mark.parametrize("wrong", [{"rate": 16000}, {"channels": 2}, {"width": 1}])
def test_recording_of_another_kind_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(RecordingError, match="need 8000 Hz"):
        read_recording(write_wav(tmp_path / "other.wav", **wrong))


def test_recording_is_a_whole_call(recording: Samples) -> None:
    assert len(recording) / SAMPLE_RATE == pytest.approx(18.68)
    assert np.abs(recording).max() > 10_000


@pytest.mark.parametrize(
    ("samples", "seconds", "frames"),
    [
        (0, None, 0),
        (1, None, 1),
        (160, None, 1),
        (161, None, 2),
        (8000, 0.5, 25),
        (8000, 9.0, 50),
        (800, 0.031, 2),
    ],
)
def test_frames_are_whole(samples: int, seconds: float | None, frames: int) -> None:
    cut = list(frames_of(np.ones(samples, dtype=np.int16), seconds))
    assert [len(frame) for frame in cut] == [FRAME_SAMPLES] * frames
    wanted = samples if seconds is None else min(samples, round(seconds * SAMPLE_RATE))
    assert sum(int(frame.sum()) for frame in cut) == wanted


class Simulated(asyncio.SelectorEventLoop):
    """An event loop whose time passes when there is nothing to do but wait, and when it is told so."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = selectors.SelectSelector()
        super().__init__(selector)
        select = selector.select

        def select_or_advance(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            self.now += timeout or 0.0
            return select(0)

        selector.select = select_or_advance  # type: ignore[method-assign]

    def time(self) -> float:
        return self.now


def play(line: Line, pauses: dict[int, float]) -> float:
    """Play a line to its end, with a consumer that blocks after some frames; return how long it took."""

    async def consume() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Simulated)
        number = 0
        async for _ in line.frames():
            loop.now += pauses.get(number, 0.0)
            number += 1
        return loop.now

    with asyncio.Runner(loop_factory=Simulated) as runner:
        return runner.run(consume())


def test_pace_is_that_of_a_call(recording: Samples) -> None:
    line = Line(recording, seconds=0.5)
    assert play(line, {}) == pytest.approx(0.5, abs=0.001)
    assert line.punctuality.frames == 25


def test_delays_do_not_add_up(recording: Samples) -> None:
    """25 delays of 8 ms would make 0.2 s, if each frame were timed from the one before."""
    assert play(Line(recording, seconds=0.5), dict.fromkeys(range(25), 0.008)) == pytest.approx(0.508, abs=0.001)


def test_late_frames_are_counted_and_caught_up(recording: Samples) -> None:
    line = Line(recording, seconds=0.4)
    took = play(line, {3: 0.1})
    assert line.punctuality.late_frames == 3
    assert line.punctuality.worst_lateness == pytest.approx(0.08, abs=0.001)
    assert took == pytest.approx(0.4, abs=0.001)


# The job


@pytest.mark.parametrize(
    ("metadata", "wishes"),
    [
        (None, CallWishes()),
        ({}, CallWishes("unknown", 1.0, None)),
        ({"caller": "+15550100"}, CallWishes("+15550100", 1.0, None)),
        ({"caller": "x", "speed": 2, "seconds": 3.5}, CallWishes("x", 2.0, 3.5)),
    ],
)
def test_metadata_is_read(metadata: object, wishes: CallWishes) -> None:
    assert CallWishes.from_metadata(metadata) == wishes


@pytest.mark.parametrize(
    "metadata",
    ["+1555", [], {"speed": 0}, {"speed": "2"}, {"speed": True}, {"seconds": -1}, {"seconds": float("inf")}],
)
def test_wrong_metadata_is_refused(metadata: object) -> None:
    with pytest.raises(ValueError, match="metadata"):
        CallWishes.from_metadata(metadata)


def test_call_in_real_time(model: VoiceModel, recording: Samples, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="call_monitor")
    with asyncio.Runner(loop_factory=Simulated) as runner:
        result = runner.run(CallMonitor(model, recording).monitor(CallWishes("+15550100", seconds=5.0)))
        assert runner.get_loop().time() == pytest.approx(5.0, abs=0.001)
    assert result["caller"] == "+15550100"
    assert result["frames"] == 250
    assert result["talk_spurts"] == [[pytest.approx(1.451, abs=TOLERANCE), pytest.approx(3.974, abs=TOLERANCE)]]
    assert result["talk_seconds"] + result["silence_seconds"] == pytest.approx(5.0)
    assert [record.getMessage()[:16] for record in caplog.records] == ["+15550100 talked"]
    json.dumps(result)  # plain data, as it must be to be a job's result


def test_call_that_ends_in_talk_keeps_its_last_spurt(model: VoiceModel, recording: Samples) -> None:
    result = asyncio.run(CallMonitor(model, recording).monitor(CallWishes(speed=20.0, seconds=3.0)))
    assert result["talk_spurts"] == [[pytest.approx(1.451, abs=TOLERANCE), pytest.approx(3.0, abs=0.05)]]

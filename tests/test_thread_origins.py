"""Who has started a native thread, for which an app is refused: it has no Python frame, and often no name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import DEADLINE

from greenroom import AppLoadError, ProcessPool
from greenroom.zygote.thread_remedies import REMEDIES, advice, remedies_for, sentence
from greenroom.zygote.thread_search import time_for

MakeApp = Callable[[str], str]

LIBRARY = """
import ctypes, threading

_libc = ctypes.CDLL(None)

def start():
    pause = ctypes.cast(_libc.pause, ctypes.c_void_p)
    assert _libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, pause, None) == 0

def start_and_end():
    pthread = ctypes.c_ulong()
    assert _libc.pthread_create(ctypes.byref(pthread), None, ctypes.cast(_libc.getpid, ctypes.c_void_p), None) == 0
    assert _libc.pthread_join(pthread, None) == 0
"""
APP = """
import native

@app.preload
def preload():
    native.start_and_end()
    native.start()
    native.start()

@app.entrypoint
async def entrypoint(ctx): ...
"""


@pytest.fixture
def make(make_app: MakeApp, tmp_path: Path) -> Callable[[str], str]:
    """Make an app that can import ``native``, as from an installed package."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "native.py").write_text(LIBRARY)
    return lambda source: make_app(f"sys.path.append({str(folder)!r})\n{source}")


async def refusal_of(app: str, preload_timeout: float = DEADLINE) -> str:
    with pytest.raises(AppLoadError) as caught:
        await ProcessPool(app, preload_timeout=preload_timeout).start()
    return str(caught.value)


def line_in(app: str, text: str) -> str:
    path = app.removesuffix(":app")
    return f"{path}, line {Path(path).read_text().splitlines().index(text) + 1}"


async def test_the_refusal_names_the_call_that_started_a_native_thread(make: MakeApp) -> None:
    """A thread that has ended is not named. Those that are left do not bear the zygote's name."""
    app = make(
        APP.replace("    native.start()\n    native.start()", "    def load():\n        native.start()\n    load()")
    )
    refusal = await refusal_of(app)
    assert "1 thread(s) besides its own" in refusal
    assert f"(started by native.start ({line_in(app, '        native.start()')}, in load))" in refusal
    assert "gr:zygote" not in refusal


async def test_the_line_is_named_where_what_started_a_thread_is_no_function_to_python(make: MakeApp) -> None:
    """As a class of an extension module is none: Python tells a profiler nothing of its call."""
    line = "    libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, pause, None)"
    start = f"libc = ctypes.CDLL(None)\n    pause = ctypes.cast(libc.pause, ctypes.c_void_p)\n{line}\n    later = 3"
    app = make(APP.replace("native.start()\n    native.start()", f"{start}\n    print(later)"))
    refusal = await refusal_of(app)
    assert f"(started by {line_in(app, line)}, in preload: {line.strip()})" in refusal


async def test_threads_of_one_call_are_told_together(make: MakeApp) -> None:
    app = make(APP.replace("    native.start()\n    native.start()", "    for _ in range(3): native.start()"))
    refusal = await refusal_of(app)
    assert "3 thread(s) besides its own: 3 times " in refusal
    assert refusal.count("started by native.start") == 1


@pytest.mark.parametrize(
    ("again", "timeout"),
    [
        ("raise ValueError('once only')", DEADLINE),
        ("os.kill(os.getpid(), 9)", DEADLINE),
        ("threading.Event().wait()", 8.0),  # until half of the rest of this time is over
    ],
)
async def test_a_second_load_that_fails_does_not_hide_the_refusal(
    make: MakeApp, tmp_path: Path, again: str, timeout: float
) -> None:
    marker = f"open({str(tmp_path / 'loaded')!r}, 'x').close()"
    source = f"\ntry: {marker}\nexcept FileExistsError: {again}\n"
    refusal = await refusal_of(make(source + APP), timeout)
    assert "2 thread(s) besides its own" in refusal
    assert "Start threads in prewarm instead" in refusal


async def test_what_the_second_load_started_ends_with_it(make: MakeApp, tmp_path: Path) -> None:
    source = "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\nprint('loaded')\n"
    refusal = await refusal_of(make(source + APP))
    assert "started by native.start" in refusal  # and the fixture finds no process


def test_a_search_leaves_time_for_the_refusal() -> None:
    assert time_for(loaded_in=1.0, left=119.0) == 15.0
    assert time_for(loaded_in=4.0, left=116.0) == 24.0
    assert time_for(loaded_in=60.0, left=600.0) == 30.0
    assert time_for(loaded_in=119.0, left=1.0) == 0.5


# --- remedies -------------------------------------------------------------------------------------


def test_only_libraries_that_are_there_have_a_remedy() -> None:
    assert remedies_for(["os", "numpy"], ["libc.so.6"]) == []
    found = remedies_for(["ctranslate2"], ["libgomp-e985bcbb.so.1.0.0", "libc.so.6"])
    assert [remedy.library.partition(" ")[0] for remedy in found] == ["ctranslate2", "OpenMP"]
    assert "@app.service" in found[0].words


def test_a_variable_that_an_operator_has_set_is_the_remedy() -> None:
    (openmp,) = remedies_for([], ["libgomp.so.1"])
    assert "set OMP_NUM_THREADS=1 (Greenroom's default)" in sentence(openmp, {"OMP_NUM_THREADS": "4"})
    assert "do not set a number of threads in the code" in sentence(openmp, {"OMP_NUM_THREADS": "1"})


def test_the_library_that_was_named_is_alone_advised_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", pytest)
    told = "a thread (started by ctranslate2._ext.Translator (agent.py, line 3))"
    assert advice(told, has_native_threads=True).startswith("ctranslate2 (faster-whisper): ")
    assert advice(told, has_native_threads=True).count(": ") == 2
    assert "ctranslate2" in advice("", has_native_threads=True)
    assert advice("", has_native_threads=False) == ""


@pytest.mark.parametrize(
    ("origin", "is_named"),
    [
        ("the import of polars (agent.py, line 3)", True),
        ("the import of polars", True),
        ("module polars.frame (lib/polars/frame.py, line 3)", True),
        ("builtins.collect, by way of polars.frame.collect (agent.py, line 3)", True),
        ("agent.py, line 3, in load", False),
        ("module other.polars (/srv/polars/agent.py, line 3)", False),
        ("my-polars (agent.py, line 3)", False),
    ],
)
def test_a_library_is_named_by_an_origin(origin: str, is_named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", pytest)
    told = advice(f"polars-0 (started by {origin})", has_native_threads=False)
    assert told.startswith("Polars: ") is is_named


def test_each_variable_in_the_table_has_a_default() -> None:
    from greenroom.pool.shell.interpreters import DEFAULT_ENVIRONMENT

    assert {variable for remedy in REMEDIES for variable in remedy.variables} == set(DEFAULT_ENVIRONMENT)

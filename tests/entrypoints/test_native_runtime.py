"""What is asked of LiveKit's native runtime while the app is imported."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit_orders import notes_of, order
from support import DEADLINE, eventually

from greenroom import AppLoadError, ExitReport, ProcessPool

MakeAgent = Callable[[str], Path]

SERVER = """
server = AgentServer(ws_url="ws://127.0.0.1:9", api_key="key", api_secret="a secret of thirty-two characters")

@server.rtc_session()
async def entrypoint(ctx: JobContext):
    await ctx.connect()
    note("job", os.getpid())
    ctx.shutdown("done")
"""

PLUGIN = """
from livekit import rtc

def load():
    rtc.AudioFilter("check", {library!r}, [])

load()
"""

IMPORT_PLUGIN = """
livekit.plugins.__path__.append(str(Path(__file__).parent / "livekit" / "plugins"))
import livekit.plugins.impatient
"""

LIBRARY = """
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
    FILE *file = fopen("NOTES", "a");
    fprintf(file, "loaded %d\\n", getpid());
    fclose(file);
}
int audio_filter_on_load(void *options) { return 0; }
void *audio_filter_create(int rate, const char *options, void *stream) { return 0; }
void audio_filter_destroy(void *filter) {}
void audio_filter_process_int16(void *filter, unsigned long n, const short *in, short *out) {}
void audio_filter_process_float(void *filter, unsigned long n, const float *in, float *out) {}
void audio_filter_update_stream_info(void *filter, void *info) {}
void audio_filter_update_token(void *url, void *token) {}
"""


def with_plugin(make_agent: MakeAgent, library: str) -> Path:
    """An agent that imports a plugin of the kind of livekit.plugins.noise_cancellation."""
    app = make_agent("import a_noise_filter\n" + SERVER)
    (app.parent / "a_noise_filter.py").write_text(PLUGIN.format(library=library))
    return app


async def run(app: Path, start_method: str) -> ExitReport:
    async with ProcessPool(str(app), num_idle_processes=1, start_method=start_method, prewarm_timeout=DEADLINE) as pool:
        return await (await pool.launch(order(), timeout=DEADLINE)).wait()


@pytest.mark.more
async def test_a_plugin_that_loads_its_library_at_import_has_it_in_each_process(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    await check_library(make_agent, tmp_path, "zygote")


async def check_library(make_agent: MakeAgent, tmp_path: Path, start_method: str) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path / "filter.so"
    app = with_plugin(make_agent, str(library))
    source = LIBRARY.replace("NOTES", str(app.with_suffix(".notes")))
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=source, text=True, check=True)
    report = await run(app, start_method)
    assert report.outcome == "succeeded", report.error
    notes = notes_of(app)
    assert f"job {report.pid}" in notes
    assert notes.count(f"loaded {report.pid}") == 1
    assert notes.index(f"loaded {report.pid}") < notes.index(f"job {report.pid}")


@pytest.mark.more
async def test_a_library_that_the_runtime_does_not_load_is_named(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    app = with_plugin(make_agent, "/no/such/filter.so")
    async with ProcessPool(str(app), num_idle_processes=1):
        await eventually(lambda: "prewarm_failed" in caplog.text, "failure of a process")
    line = app.read_text().splitlines().index("import a_noise_filter") + 1
    place = f"module a_noise_filter ({app.parent / 'a_noise_filter.py'}, line 5; imported at {app}, line {line})"
    assert f"did not load /no/such/filter.so for {place}: " in caplog.text


@pytest.mark.more
async def test_a_plugin_whose_request_cannot_wait_is_named(make_agent: MakeAgent, tmp_path: Path) -> None:
    app = make_agent(f"sys.path.insert(0, {str(tmp_path)!r})\nimport livekit.plugins\n" + IMPORT_PLUGIN + SERVER)
    folder = tmp_path / "livekit" / "plugins" / "impatient"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from livekit import rtc\nsource = rtc.AudioSource(48000, 1)\n")
    place = (
        f"module livekit.plugins.impatient of the plugin livekit.plugins.impatient ({folder / '__init__.py'}, line 2; "
    )
    with pytest.raises(AppLoadError, match="native runtime while the app was imported") as caught:
        await run(app, "zygote")
    assert place in str(caught.value)


@pytest.mark.more
async def test_what_cannot_wait_for_the_runtime_is_named(make_agent: MakeAgent) -> None:
    app = make_agent(SERVER + "\nsource = rtc.AudioSource(48000, 1)\n")
    line = app.read_text().splitlines().index("source = rtc.AudioSource(48000, 1)") + 1
    with pytest.raises(AppLoadError, match="native runtime while the app was imported") as caught:
        await run(app, "zygote")
    assert f"({app}, line {line})" in str(caught.value)


async def test_a_module_is_named_whose_name_only_begins_like_one_that_passes_requests_on(
    make_agent: MakeAgent,
) -> None:
    names = ("greenroom_agents", "ctypes_of_mine", "importlibs")
    imports = "".join(f"try: import {name}\nexcept Exception as error: note(error)\n" for name in names)
    app = make_agent(imports + SERVER + "\nraise LookupError('all were tried')\n")
    for name in names:
        (app.parent / f"{name}.py").write_text("from livekit import rtc\nsource = rtc.AudioSource(48000, 1)\n")
    with pytest.raises(AppLoadError, match="all were tried"):
        await run(app, "zygote")
    told = "\n".join(notes_of(app))
    for name in names:
        assert f"module {name} ({app.parent / name}.py, line 2; " in told


@pytest.mark.more
async def test_spawned_processes_may_use_the_runtime_at_import(make_agent: MakeAgent) -> None:
    report = await run(make_agent(SERVER + "\nsource = rtc.AudioSource(48000, 1)\n"), "spawn")
    assert report.outcome == "succeeded", report.error

"""What an app logs while it is imported keeps its level, logger and fields, as what it logs later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import listening
from test_app_logging import Kept

from greenroom import AppLoadError, ProcessPool

MakeApp = Callable[[str], str]

APP = """
import logging
SET_UP
for level in (10, 20, 30, 40):
    logging.getLogger("mine").log(level, "import: %d", level, extra={"caller": "Ada"})
print("printed", flush=True)

@app.entrypoint
async def entrypoint(ctx):
    for level in (10, 20, 30, 40):
        logging.getLogger("mine").log(level, "job: %d", level)
"""

SET_UPS = {
    "nothing": ("pass", 30),
    "basicConfig": ("logging.basicConfig(level='INFO', format='mine: %(message)s')", 20),
    "handler on stdout": (
        "logging.getLogger().addHandler(logging.StreamHandler(sys.stdout)); logging.getLogger().setLevel('DEBUG')",
        10,
    ),
    "handler of a logger": (
        "logging.getLogger('mine').addHandler(logging.StreamHandler()); logging.getLogger('mine').setLevel('INFO')\n"
        "logging.getLogger('mine').propagate = False",
        20,
    ),
}


@pytest.fixture
def kept() -> Iterator[Kept]:
    with listening(Kept(), "greenroom.app") as handler:
        yield handler


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
@pytest.mark.parametrize("case", SET_UPS)
async def test_what_is_logged_at_import_keeps_its_level(
    make_app: MakeApp, kept: Kept, case: str, start_method: str
) -> None:
    set_up, level = SET_UPS[case]
    async with ProcessPool(
        make_app(APP.replace("SET_UP", set_up)), num_idle_processes=1, start_method=start_method
    ) as pool:
        report = await (await pool.launch()).wait()
    assert report.outcome == "succeeded", report.error
    for number in (10, 20, 30, 40):
        records = kept.of(f"import: {number}")
        assert {record.levelno for record in records} == ({number} if number >= level else set())
        assert {vars(record)["stream"] for record in records} <= {"log"}
        assert {vars(record)["app_logger"] for record in records} <= {"mine"}
        if start_method == "zygote":
            assert len(records) == (number >= level)
    for number in (30, 40):
        (line,) = kept.of(f"job: {number}")
        assert (line.levelno, vars(line)["job_id"]) == (number, report.job_id)
    assert {vars(record)["stream"] for record in kept.of("printed")} == {"stdout"}
    if case == "nothing":
        assert all(vars(record)["fields"] == {"caller": "Ada"} for record in kept.of("import: 40"))


async def test_what_an_app_logs_before_it_fails_to_load_is_kept(make_app: MakeApp, kept: Kept) -> None:
    with pytest.raises(AppLoadError, match="no such model"):
        async with ProcessPool(make_app("import logging; logging.error('first'); raise LookupError('no such model')")):
            pass
    (first,) = kept.of("first")
    assert (first.levelname, vars(first)["process_id"]) == ("ERROR", "zygote-1")


async def test_a_log_that_is_written_to_a_file_at_import_stays_there(
    make_app: MakeApp, kept: Kept, tmp_path: Path
) -> None:
    path = tmp_path / "app.log"
    set_up = f"logging.basicConfig(filename={str(path)!r}, level='INFO')"
    async with ProcessPool(make_app(APP.replace("SET_UP", set_up)), num_idle_processes=1) as pool:
        await (await pool.launch()).wait()
    assert path.read_text().count("import: 20") == 1
    assert kept.of("import: ") == []

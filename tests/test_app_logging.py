"""What apps log with arrives once, with level, session, process and generation: logging, structlog and loguru."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import Kept, listening

from greenroom import ProcessPool

MakeApp = Callable[[str], str]

APP = """
def set_up():
    SET_UP

@app.preload
def preload():
    import logging, loguru, structlog
    global bound
    bound = structlog.get_logger()
    if WHERE == "preload":
        set_up()

@app.prewarm
async def prewarm(proc):
    if WHERE == "prewarm":
        set_up()

@app.entrypoint
async def entrypoint(ctx):
    import logging, loguru, structlog
    if WHERE == "entrypoint":
        set_up()
    LOG
    try:
        {}["missing"]
    except KeyError:
        LOG_ERROR
    print("the end", flush=True)
"""

NOTHING = "pass"
BASIC = "import logging; logging.basicConfig(level=logging.INFO, format='mine: %(message)s', force=True)"
STDOUT_HANDLER = """import logging; logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
    logging.getLogger().setLevel("INFO")"""
DICT_CONFIG = """import logging.config; logging.config.dictConfig({
        "version": 1, "disable_existing_loggers": False, "root": {"handlers": ["console"], "level": "INFO"},
        "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}})"""
STRUCTLOG_STDLIB = """import structlog; structlog.configure(
        logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.add_log_level, structlog.stdlib.render_to_log_kwargs])"""
STRUCTLOG_FORMATTER = """import logging, structlog
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info, structlog.processors.LogfmtRenderer()]))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    structlog.configure(
        logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter])"""
INTERCEPT = """import inspect, logging, loguru
    class Intercept(logging.Handler):
        def emit(self, record):
            loguru.logger.opt(exception=record.exc_info).log(record.levelname, record.getMessage())
    logging.basicConfig(handlers=[Intercept()], level=logging.INFO, force=True)"""

STDLIB_LOG = ("logging.getLogger('mine').info('hello', extra={'caller': 'Ada'})", "logging.exception('it failed')")
STRUCTLOG_LOG = ("bound.bind(caller='Ada').info('hello')", "structlog.get_logger().exception('it failed')")
LOGURU_LOG = ("loguru.logger.bind(caller='Ada').info('hello')", "loguru.logger.exception('it failed')")

CASES = {
    "logging": (NOTHING, STDLIB_LOG),
    "logging, basicConfig": (BASIC, STDLIB_LOG),
    "logging, handler on stdout": (STDOUT_HANDLER, STDLIB_LOG),
    "logging, dictConfig": (DICT_CONFIG, STDLIB_LOG),
    "structlog": (NOTHING, STRUCTLOG_LOG),
    "structlog on logging": (STRUCTLOG_STDLIB, STRUCTLOG_LOG),
    "structlog, a formatter of its own": (STRUCTLOG_FORMATTER, STRUCTLOG_LOG),
    "loguru": (NOTHING, LOGURU_LOG),
    "logging, intercepted by loguru": (INTERCEPT, STDLIB_LOG),
}
WITH_FIELDS = ("logging", "structlog", "structlog on logging", "loguru")


@pytest.fixture
def kept() -> Iterator[Kept]:
    with listening(Kept(), "greenroom.app") as handler:
        yield handler


def source(where: str, set_up: str, log: tuple[str, str]) -> str:
    text = APP.replace("SET_UP", set_up).replace("LOG_ERROR", log[1]).replace("LOG", log[0])
    return f"WHERE = {where!r}\n{text}"


async def run(app: str) -> Any:
    async with ProcessPool(app, num_idle_processes=1) as pool:
        return await (await pool.launch()).wait()


@pytest.mark.parametrize("where", ["preload", "prewarm"])
@pytest.mark.parametrize("case", CASES)
async def test_each_record_arrives_once_with_all_that_is_known(
    make_app: MakeApp, kept: Kept, case: str, where: str
) -> None:
    report = await run(make_app(source(where, *CASES[case])))
    assert report.outcome == "succeeded", report.error
    (hello,), (failure,), (end,) = kept.of("hello"), kept.of("it failed"), kept.of("the end")
    assert (hello.levelname, failure.levelname) == ("INFO", "ERROR")
    assert "Traceback (most recent call last)" in failure.getMessage()
    assert "KeyError: 'missing'" in failure.getMessage()
    for record in (hello, failure, end):
        known = vars(record)
        assert known["process_id"] == report.process_id
        assert (known["job_pid"], known["job_id"], known["generation"]) == (report.pid, report.job_id, 1)
    assert len(kept.records) == 3, [record.getMessage() for record in kept.records]
    if case in WITH_FIELDS:
        assert vars(hello)["fields"]["caller"] == "Ada"


@pytest.mark.parametrize("case", [case for case in CASES if case != "logging, intercepted by loguru"])
async def test_what_is_set_up_in_the_job_itself_is_neither_lost_nor_doubled(
    make_app: MakeApp, kept: Kept, case: str
) -> None:
    report = await run(make_app(source("entrypoint", *CASES[case])))
    assert report.outcome == "succeeded", report.error
    assert len(kept.of("hello")) == len(kept.of("it failed")) == 1


FILE = "import logging; logging.basicConfig(filename={path!r}, level=logging.INFO)"


async def test_a_log_that_the_app_keeps_elsewhere_is_left_alone(make_app: MakeApp, kept: Kept, tmp_path: Any) -> None:
    path = tmp_path / "app.log"
    await run(make_app(source("preload", FILE.format(path=str(path)), STDLIB_LOG)))
    assert path.read_text().count("hello") == 1
    assert kept.of("hello") == []


async def test_loguru_sinks_of_the_app_stay_its_own(make_app: MakeApp, kept: Kept) -> None:
    set_up = "import loguru; loguru.logger.remove(); loguru.logger.add(sys.stderr, format='<< {message} >>')"
    await run(make_app(source("preload", set_up, LOGURU_LOG)))
    (hello,) = kept.of("hello")
    assert hello.getMessage() == "<< hello >>"
    assert vars(hello)["stream"] == "stderr"


async def test_contextvars_of_structlog_are_told(make_app: MakeApp, kept: Kept) -> None:
    log = ("structlog.contextvars.bind_contextvars(call='c1'); structlog.get_logger().warning('hello')", "pass")
    await run(make_app(source("preload", NOTHING, log)))
    (hello,) = kept.of("hello")
    assert hello.levelname == "WARNING"
    assert vars(hello)["fields"]["call"] == "c1"

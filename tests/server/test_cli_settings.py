"""Settings through the real command: help, `greenroom config`, its errors, and shell completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import pytest
from commands import GREENROOM
from running_worker import RunningWorker

from greenroom.settings import DEFAULTS
from greenroom.settings.fields import all_settings
from greenroom.settings.file import from_file

MakeApp = Callable[[str], str]

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this folder with this environment, and nothing of the test's own settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
    environment = {**inherited, "COLUMNS": "200", "TERM": "dumb", **environ}
    return commands.run(*arguments, cwd=folder, env=environment)


def shown(*arguments: str, folder: Path, **environ: str) -> Any:
    done = run("config", "--json", *arguments, folder=folder, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", ["start", "dev", "config"])
def test_help_lists_flag_variable_and_default_of_each_setting(command: str, tmp_path: Path) -> None:
    done = run(command, "--help", folder=tmp_path)
    words = done.stdout.split()
    assert done.returncode == 0
    for setting in all_settings().values():
        assert f"{setting.variable}]" in words
        assert any(word.partition("/")[0] == setting.flag for word in words)
    assert "GREENROOM_CONFIG]" in words
    idle = DEFAULTS["dev" if command == "dev" else "start"].pool.num_idle_processes
    assert f"GREENROOM_NUM_IDLE_PROCESSES] [default: {idle}]" in done.stdout


def test_each_origin_is_shown(tmp_path: Path) -> None:
    (tmp_path / "greenroom.toml").write_text("[pool]\nmax_jobs = 5\nidle_ttl = 7\njob_timeout = 60\n")
    found = shown("--job-timeout", "9", folder=tmp_path, GREENROOM_IDLE_TTL="8", GREENROOM_JOB_TIMEOUT="1")
    assert (found["command"], found["file"]) == ("start", "greenroom.toml")
    settings = found["settings"]
    assert list(settings) == list(all_settings())
    of = {name: (one["value"], one["origin"]["kind"], one["origin"]["name"]) for name, one in settings.items()}
    assert of["max_jobs"] == (5, "file", "greenroom.toml")
    assert settings["max_jobs"]["origin"]["line"] == 2
    assert of["idle_ttl"] == (8.0, "environment", "GREENROOM_IDLE_TTL")
    assert of["job_timeout"] == (9.0, "flag", "--job-timeout")
    assert of["port"] == (8700, "default", "start")


def test_the_table_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("pool.max_jobs = 5")
    lines = run("config", "--for", "dev", folder=tmp_path, GREENROOM_CONFIG="mine.toml").stdout.splitlines()
    rows = {name: rest for name, *rest in (line.split(maxsplit=2) for line in lines)}
    assert rows["pool.max_jobs"] == ["5", "mine.toml, line 1"]
    assert rows["pool.num_idle_processes"] == ["1", "default of dev"]
    assert len(rows) == len(all_settings())


def test_config_writes_a_file_that_it_can_read(tmp_path: Path) -> None:
    done = run("config", "--toml", "--max-jobs", "7", "--stall-timeout", "off", folder=tmp_path)
    file = tmp_path / "greenroom.toml"
    file.write_text(done.stdout)
    written = from_file(file)
    expected = {n: s.default("start") for n, s in all_settings().items() if not s.is_secret}
    assert {name: one.value for name, one in written.items()} == expected | {"max_jobs": 7, "stall_timeout": None}
    assert "max_jobs = 7  # --max-jobs" in done.stdout


@pytest.mark.parametrize("name", [name for name, one in all_settings().items() if one.is_secret])
def test_no_secret_is_shown(name: str, tmp_path: Path) -> None:
    secret = "a-long-and-secret-value-of-this-test"
    environ = {"GREENROOM_TOKEN": "another-secret-of-this-test", all_settings()[name].variable: secret}
    for form in ([], ["--json"], ["--toml"]):
        done = run("config", *form, folder=tmp_path, **environ)
        assert "***" in done.stdout
        assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "environ", "arguments", "says"),
    [
        ("[pool]\nmax_job = 1", {}, [], "greenroom.toml, line 2: there is no setting pool.max_job; did you mean max_j"),
        ("[pool]\nmax_jobs = 'x'", {}, [], "greenroom.toml, line 2: max_jobs is 'x', which is not a whole number"),
        ("[server]\nport = 70000", {}, [], "greenroom.toml, line 2: port is 70000; it must be between"),
        ("", {"GREENROOM_PROT": "1"}, [], "GREENROOM_PROT is not a setting. Did you mean GREENROOM_PORT?"),
        ("", {"GREENROOM_LOG_LEVEL": "loud"}, [], "GREENROOM_LOG_LEVEL is 'loud', which is none of: debug, info"),
        ("", {"GREENROOM_MAX_JOBS": "0"}, [], "GREENROOM_MAX_JOBS: max_jobs is 0"),
        ("", {"GREENROOM_CONFIG": "no.toml"}, [], "the settings file no.toml cannot be read: No such file"),
        ("", {}, ["--config", "no.toml"], "the settings file no.toml cannot be read: No such file"),
        ("", {}, ["--max-job", "1"], "--max-jobs"),
        ("", {}, ["--max-jobs", "x"], "--max-jobs is 'x', which is not a whole number"),
        ("", {}, ["--max-jobs", "0"], "--max-jobs: max_jobs is 0"),
    ],
)
@pytest.mark.parametrize("command", ["start", "config"])
def test_what_is_wrong_is_one_line_with_its_origin_and_nothing_starts(
    command: str, file: str, environ: dict[str, str], arguments: list[str], says: str, tmp_path: Path
) -> None:
    (tmp_path / "greenroom.toml").write_text(file)
    (tmp_path / "agent.py").write_text("open('loaded', 'w')")
    app = ["agent.py"] if command == "start" else []
    done = run(command, *app, *arguments, folder=tmp_path, **environ)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith(f"greenroom {command}: error: ")
    assert says in done.stderr
    assert not (tmp_path / "loaded").exists()


async def test_a_worker_runs_by_file_and_environment(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app("@app.entrypoint\nasync def entrypoint(ctx): return 'done'")
    (tmp_path / "greenroom.toml").write_text("[pool]\nnum_idle_processes = 2\n[log]\nlog_format = 'human'\n")
    environ = {**os.environ, "GREENROOM_LOG_FORMAT": "json", "GREENROOM_PORT_8700_TCP": "tcp://10.0.0.7:8700"}
    async with RunningWorker(app, cwd=tmp_path, env=environ) as worker:
        await worker.logs(r'"message": "settings are read from .*greenroom.toml"')
        await worker.logs(r'"message": "serving .* with 2 idle processes"')


def test_the_documentation_is_what_the_types_say() -> None:
    script = [sys.executable, "scripts/settings_doc.py", "--check"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["greenroom", "star"], ["start"]),
        (["greenroom", "start", "--max-j"], ["--max-jobs"]),
        (["greenroom", "start", "--start-method", "s"], ["spawn"]),
        (["greenroom", "config", "--for", ""], ["start", "dev"]),
    ],
)
def test_bash_completes(words: list[str], completed: list[str], tmp_path: Path) -> None:
    script = """
    eval "$(greenroom --show-completion)"
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _greenroom_completion greenroom
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    assert bash(script, *words, folder=tmp_path).splitlines() == completed


def test_completion_is_installed_for_bash(tmp_path: Path) -> None:
    script = """
    greenroom --install-completion >/dev/null
    . ~/.bashrc
    complete -p greenroom
    """
    assert bash(script, folder=tmp_path).strip().endswith("-F _greenroom_completion greenroom")


def bash(script: str, *arguments: str, folder: Path) -> str:
    path = f"{Path(GREENROOM).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *arguments],
        env={**os.environ, "PATH": path, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout

"""Run docs/first-five-minutes.md as its reader would: save its file, run its commands, compare its promises.

Usage: python scripts/first_minutes.py [--install]

Without `--install`, the section "Install" is left out and the `greenroom` on the PATH is tried. The worker listens on a
free port instead of the page's, so that another worker may run on this machine.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "first-five-minutes.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.M | re.S)
FILE = re.compile(r"Save this as `([\w.]+)`")
PROMISE = re.compile(r"`(\w+)` \(`([^`]+)`\)")
URL = "http://127.0.0.1:8700"
LISTENS = re.compile(r" on (http://[\d.]+:\d+), with")
LOGGED = ("talking to Ada", "succeeded: completed")
WAIT = 60.0
"""Seconds for the worker to become ready, and to end. A command may take twice as long."""
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class PageError(Exception):
    """The page promises what does not happen."""


@dataclass(frozen=True)
class Page:
    install: list[str]
    file: str
    source: str
    serve: str
    requests: list[str]
    promises: dict[str, str]
    """The fields of the report, with the values that the page names."""


def read(page: Path = PAGE) -> Page:
    """Return what the page has the reader do."""
    sections = dict(_sections(page.read_text()))
    try:
        [(_, source)] = BLOCK.findall(sections["Write an app"])
        [file] = FILE.findall(sections["Write an app"])
        [serve] = _commands(sections["Serve it"])
        install, requests = _commands(sections["Install"]), _commands(sections["Start a session"])
    except (KeyError, ValueError) as error:
        raise PageError(f"{page.name} lacks an expected part: {error!r}. Change {__file__}.") from error
    return Page(install, file, source, serve, requests, dict(PROMISE.findall(sections["Start a session"])))


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        title, _, body = part.partition("\n")
        yield title, body


def _commands(section: str) -> list[str]:
    return [line for language, block in BLOCK.findall(section) if language == "sh" for line in block.splitlines()]


def follow(page: Page, folder: Path, environment: Mapping[str, str], *, install: bool) -> None:
    """Do all of it in an empty folder. Raise PageError where the page is wrong."""
    (folder / page.file).write_text(page.source)
    setting = {**environment, "GREENROOM_PORT": "0", "no_proxy": "127.0.0.1"}
    before = _shell(page.install, folder, setting) if install else ""
    log = folder / "worker.log"
    with log.open("wb") as stderr:
        # `exec`: the shell becomes the worker, so a signal to it is the reader's Ctrl-C.
        worker = subprocess.Popen(
            ["bash", "-ec", f"{before}exec {page.serve}"], cwd=folder, env=setting, stdout=stderr, stderr=stderr
        )
        try:
            url = _ready(worker, log)
            answers = [_request(command.replace(URL, url), folder, setting) for command in page.requests]
        finally:
            code = _end(worker)
    _compare(page, answers, code, log.read_text())


def _shell(commands: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Run the commands in one shell. Return those that change the shell itself, for the shells that follow."""
    _run("\n".join(commands), folder, environment)
    return "".join(f"{command}\n" for command in commands if command.startswith(". "))


def _run(script: str, folder: Path, environment: Mapping[str, str]) -> str:
    command = ["bash", "-ec", script]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=2 * WAIT
        )
    except subprocess.TimeoutExpired as error:
        raise PageError(f"a command takes longer than {error.timeout:.0f} s:\n{script}") from error
    if done.returncode:
        raise PageError(f"a command fails with status {done.returncode}:\n{script}\n{done.stdout}{done.stderr}")
    return done.stdout


def _ready(worker: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until a session could start. Return the worker's address."""
    give_up = time.monotonic() + WAIT
    while (found := LISTENS.search(log.read_text(errors="replace"))) is None or not _answers(f"{found[1]}/readyz"):
        if worker.poll() is not None or time.monotonic() > give_up:
            raise PageError(f"the worker is not ready (status {worker.poll()}):\n{log.read_text()}")
        time.sleep(0.02)
    return found[1]


def _end(worker: subprocess.Popen[bytes]) -> int:
    """End the worker as the reader does. Return its exit code."""
    if worker.poll() is None:
        worker.send_signal(signal.SIGINT)
    try:
        return worker.wait(WAIT)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()


def _answers(url: str) -> bool:
    try:
        DIRECT.open(url, timeout=WAIT).close()
    except OSError:
        return False
    return True


def _request(command: str, folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    answer = _run(command, folder, environment)
    try:
        found: dict[str, object] = json.loads(answer)
    except ValueError as error:
        raise PageError(f"the answer is not JSON:\n{command}\n{answer}") from error
    return found


def _compare(page: Page, answers: list[dict[str, object]], code: int, log: str) -> None:
    first, last = answers[0], answers[-1].get("report")
    if not {"pid", "start_ms"} <= first.keys():
        raise PageError(f"the first answer has no `pid` and `start_ms`: {first}")
    if not isinstance(last, dict) or not page.promises:
        raise PageError(f"there is no report to compare: {answers[-1]}")
    for field, value in page.promises.items():
        if last.get(field) != value:
            raise PageError(f"the report's `{field}` is {last.get(field)!r}, but the page has {value!r}")
    for text in LOGGED:
        if text not in log:
            raise PageError(f"the log does not have {text!r}:\n{log}")
    if code:
        raise PageError(f"the worker ends with status {code} after Ctrl-C:\n{log}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run docs/first-five-minutes.md as its reader would.")
    parser.add_argument("--install", action="store_true", help='run the section "Install", too')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            follow(read(), Path(folder), os.environ, install=options.install)
        except PageError as error:
            print(f"error: {PAGE.name} is wrong: {error}", file=sys.stderr)
            return 1
    print(f"{PAGE.name}: each command works")
    return 0


if __name__ == "__main__":
    sys.exit(main())

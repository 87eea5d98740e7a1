"""``scripts/livekit_server.py``, with a command called ``go`` that builds quickly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "livekit_server.py"

BUILDS = """\
#!/bin/sh
echo "$@" >> "$GO_CALLS"
echo '#!/bin/sh' > "$GOBIN/server"
chmod +x "$GOBIN/server"
"""
FAILS = """\
#!/bin/sh
echo half > "$GOBIN/server"
echo "go: module lookup disabled"
exit 1
"""


class Machine:
    """A cache and a PATH of its own."""

    def __init__(self, directory: Path) -> None:
        self.cache = directory / "cache"
        self.calls = directory / "calls"
        self._bin = directory / "bin"
        self._bin.mkdir()

    def install_go(self, script: str) -> None:
        go = self._bin / "go"
        go.write_text(script)
        go.chmod(0o755)

    def start(self) -> subprocess.Popen[str]:
        environment = {"PATH": f"{self._bin}:/bin", "XDG_CACHE_HOME": str(self.cache), "GO_CALLS": str(self.calls)}
        # -I -S: nothing that is installed is seen, as before anything is.
        command = [sys.executable, "-I", "-S", str(SCRIPT)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        )

    def run(self) -> tuple[int, str, str]:
        process = self.start()
        said, complained = process.communicate()
        return process.returncode, said.strip(), complained


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_server_is_built_once(machine: Machine) -> None:
    machine.install_go(BUILDS)
    code, path, complained = machine.run()
    assert (code, Path(path).parent) == (0, machine.cache / "greenroom")
    assert os.access(path, os.X_OK)
    assert "once" in complained
    assert machine.run() == (0, path, "")
    assert machine.calls.read_text().count("install") == 1


def test_of_those_who_want_it_at_once_one_builds(machine: Machine) -> None:
    machine.install_go(BUILDS)
    processes = [machine.start() for _ in range(4)]
    paths = {process.communicate()[0] for process in processes}
    assert {process.returncode for process in processes} == {0}
    assert len(paths) == 1
    assert machine.calls.read_text().count("install") == 1


def test_without_go_it_says_so(machine: Machine) -> None:
    code, path, complained = machine.run()
    assert (code, path) == (3, "")
    assert "`go` is not in PATH" in complained


def test_a_build_that_fails_leaves_nothing_and_says_why(machine: Machine) -> None:
    machine.install_go(FAILS)
    code, path, complained = machine.run()
    assert (code, path) == (1, "")
    assert "module lookup disabled" in complained
    assert {file.suffix for file in (machine.cache / "greenroom").iterdir()} == {".lock"}

"""The part of livekit-agents that Greenroom drives is private there: so each release is tried out.

The oldest and the newest here; ``livekit_releases.py`` tries those between them.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from releases import NEWEST, OLDEST, PRERELEASE, environment, newer_releases

SCENARIO = Path(__file__).with_name("contract_scenario.py")
JUDGED = ("load AW_1 [] True", "load AW_1 ['AJ_1'] False")
"""What LiveKit's own code makes of the jobs that its server is shown."""


@pytest.fixture
def cache(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.cache.mkdir("livekit-agents")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("release", [pytest.param(OLDEST, marks=pytest.mark.more), NEWEST])
def test_the_contract_holds(release: str, cache: Path) -> None:
    check(release, cache)


@pytest.mark.timeout(900)
def test_the_contract_holds_in_releases_that_are_newer_than_this_test(cache: Path) -> None:
    for release in newer_releases():
        check(release, cache)


def check(release: str, cache: Path) -> None:
    done = subprocess.run(
        [environment(release, cache), SCENARIO], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    manifest = found.pop("manifest")
    assert manifest["livekit_agents_version"].startswith(f"{release}.")
    assert (manifest["agent_name"], manifest["worker_type"]) == ("greeter", "room")
    assert manifest["options"] == {"num_idle_processes": 2}
    lines = found.pop("lines")
    succeeded = ["succeeded", "completed", None, {"ended_by": "over"}]
    assert found == {
        "loads": [0.0, 0.1],
        "refuse": True,
        "take": {"name": "Ada", "identity": "agent-AJ_1", "metadata": "", "attributes": {"floor": "1"}},
        "raise": ["failed", "raised", "LookupError", None],
        "exit": ["failed", "exited", "SystemExit", None],
        "infer": succeeded,
        "restarted": succeeded,
        "stop": succeeded,
        "wait": ["cancelled", "cancelled", None, None],  # the entrypoint had to be cut off
    }, done.stderr
    assert lines == [
        *("load started unregistered", "load registered AW_1 ServerInfo"),
        *(("load AW_1 []", "load AW_1 ['AJ_1']") if release == PRERELEASE else JUDGED),
        *("raise session end", "raise callback job crashed"),
        *("exit session end", "exit callback job crashed"),
        *("infer b'cba'", "infer session end", "infer callback over"),
        *("restarted 1 agent-x", "restarted session end", "restarted callback over"),
        *("stop session end", "stop callback over"),
        *("wait waits", "wait session end", "wait callback enough"),
    ]

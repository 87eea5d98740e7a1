"""The attacks of the hostile hour, and its account. ``test_hostile_runs.py`` runs it for a few seconds."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

from benchmarks.hostile.account import Session, account_of
from benchmarks.hostile.attacks import ATTACKS
from benchmarks.hostile.attacks.bodies import packed_zeros

ROOT = Path(__file__).resolve().parent.parent


def test_the_command_names_each_attack() -> None:
    command = [sys.executable, "-m", "benchmarks.hostile", "--list"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"\n{name} " in f"\n{said}" for name in ATTACKS)
    command[-1:] = ["--only", "no-such-attack"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown attack: no-such-attack" in done.stderr


def test_the_bombs_unpack() -> None:
    bombs = packed_zeros(3)
    assert gzip.decompress(bombs["gzip"]) == bytes(3 << 20)
    assert zlib.decompress(bombs["deflate"]) == bytes(3 << 20)


def accepted(**facts: Any) -> Session:
    return Session(**{"id": "s", "kind": "live", "wants": "completed", "nonce": "n", "answer": "accepted", **facts})


def test_the_account_tells_ends_apart() -> None:
    served = accepted(reason="completed", result={"nonce": "n"})
    sessions = [
        served,
        accepted(id="silent"),
        accepted(id="swapped", reason="completed", result={"nonce": "of another"}),
        accepted(id="stalled", reason="stalled", detail="no beat"),
        accepted(id="hit", reason="signaled", pid=7),
        accepted(id="crashed", kind="crashes", wants="signaled", reason="signaled"),
        accepted(id="any", kind="unfinished-results", wants="any", reason="protocol_error"),
        Session("full", "short", "completed", answer="full"),
        Session("theirs", "crashes", "any", answer="warming"),
    ]
    account = account_of(sessions, killed={7})
    assert dict(account.served) == {"live": 1, "attackers": 2}
    assert [each.split(" ")[0] for each in account.lost] == ["silent", "swapped", "stalled"]
    assert dict(account.rejected) == {"full": 1}
    assert dict(account.attackers_rejected) == {"warming": 1}
    assert account.attacked == 1

"""Check of the written files by the newest HAProxy of Debian, at night: anybody's next release could fail it.

The file's name keeps it out of ``make test``; ``pytest tests/machines/newest_haproxy.py`` runs it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from machines.haproxy import check
from machines.test_haproxy_file import CASES, TOKEN, certificate, written

from scripts import newest_haproxy

__all__ = ["certificate"]


@pytest.fixture(scope="session")
def newest() -> str:
    return newest_haproxy.command(newest_haproxy.fetch())


def test_it_is_a_newer_one(newest: str) -> None:
    said = subprocess.run([*newest.split(), "-v"], capture_output=True, text=True, check=True).stdout
    assert not said.startswith("HAProxy version 2."), said


@pytest.mark.parametrize("case", CASES)
async def test_the_newest_haproxy_accepts_the_file_without_a_warning(
    case: str, newest: str, certificate: Callable[[], tuple[str, str]], tmp_path: Path
) -> None:
    options = dict(CASES[case])
    if options.pop("tls", False):
        options["worker_ca"], options["proxy_cert"] = certificate()
    for name, text in written(**options).items():
        (tmp_path / name).write_text(text)
    config = tmp_path / "haproxy.cfg"
    code, said = await check(config, haproxy=newest, env={**os.environ, "FRONT_TOKEN": TOKEN})
    assert code == 0, said
    assert "WARNING" not in said

"""LiveKit apps as source text. Without livekit-agents there is nothing to test here."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

# Found, and not imported: that takes each process of pytest seconds of CPU.
if not (find_spec("livekit") and find_spec("livekit.agents")):
    pytest.skip("livekit-agents is not installed: pip install 'greenroom[livekit]'", allow_module_level=True)


@pytest.fixture
def make_agent(tmp_path: Path) -> Callable[[str], Path]:
    """Write an agent to a file, as its author would; ``note(...)`` in it appends to a file beside it."""
    numbers = itertools.count()

    def make(source: str, prelude: str = PRELUDE) -> Path:
        path = tmp_path / f"agent_{next(numbers)}.py"
        path.write_text(prelude + textwrap.dedent(source))
        return path

    return make


PRELUDE = """\
import asyncio, ctypes, json, logging, os, sys
from pathlib import Path
from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobProcess, JobRequest, WorkerOptions, cli, get_job_context
from livekit.agents.utils import http_context

def note(*words):
    with open(Path(__file__).with_suffix(".notes"), "a") as file:
        print(*words, file=file)

"""

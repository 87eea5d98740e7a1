"""The drill: incidents are played for real, and each reader finds cause, call, caller, time, file and line.

The page in at most 3 clicks, the commands in at most 2, and the JSON log alone after the worker is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from server.drill.command_reader import read_commands
from server.drill.incidents import INCIDENTS, Incident
from server.drill.log_reader import read_log
from server.drill.page_reader import read_page
from server.drill.scene import Scene

pytestmark = [pytest.mark.in_pairs, pytest.mark.more]  # a browser each


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.name)
async def test_an_incident_is_explained(incident: Incident, make_app: Callable[[str], str], tmp_path: Path) -> None:
    async with Scene(make_app, tmp_path, incident.options) as scene:
        facts = await incident.occurs(scene)
        await read_page(scene.url, incident.clicks, facts)
        await read_commands(scene.url, incident.commands, facts)
        lines = await scene.log()
    if incident.log is not None:
        read_log(lines, incident.log, facts, incident.place_in)

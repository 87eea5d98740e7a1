from __future__ import annotations

import pytest
from machines.haproxy import program


@pytest.fixture(scope="session")
def installed() -> str:
    """The HAProxy that is installed. Without one, its tests are skipped, and fail in CI."""
    return program()

"""Libraries for models that are too large for each run of the tests, in an environment of their own.

The file's name keeps it out of ``make test``; ``pytest tests/models/night.py`` runs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from entrypoints.releases import installed

TESTS = Path(__file__).resolve().parent.parent
LIBRARIES = (
    *("torch>=2.9", "lightgbm>=4.6", "xgboost>=3,<4", "faiss-cpu>=1.12", "numba>=0.62", "jax>=0.6"),
    *("pandas>=3", "pyarrow>=21", "opencv-python-headless>=4.12", "numexpr>=2.11"),
    *("polars>=1.30", "duckdb>=1.4", "zarr>=3", "lancedb>=0.25", "chromadb>=1"),
)
LIMIT = pytest.mark.timeout(2400)


@LIMIT
@pytest.mark.parametrize("arguments", [["models/large_libraries.py"], ["test_docs.py", "-k", "models.md"]])
def test_they_load(arguments: list[str], request: pytest.FixtureRequest) -> None:
    run(with_libraries(request), *arguments)


@LIMIT
def test_torch_behind_walls(request: pytest.FixtureRequest) -> None:
    base = str(with_libraries(request).parent.parent)
    site = sysconfig.get_path("purelib", "venv", vars={"base": base, "platbase": base})
    # The command `greenroom`, which this test runs as another user, is in this environment alone.
    run(Path(sys.executable), "walls/test_compatible_libraries.py", "-k", "torch", PYTHONPATH=site)


def with_libraries(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    return installed(request.config.cache.mkdir("models") / "large", *LIBRARIES)


def run(python: Path, *arguments: str, **variables: str) -> None:
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "NIGHTLY": "1", **variables}
    assert subprocess.run(command, cwd=TESTS, env=environment, timeout=1100, check=False).returncode == 0

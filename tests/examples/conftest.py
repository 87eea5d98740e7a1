"""Makes the examples' modules importable, as `greenroom start` does for an app that is given as a path."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "call_monitor"))

# Imported here, under the variables that the zygote would set, so that no thread of theirs is left in the
# test run; and set for this moment alone, so that they do not do the zygote's work in other tests.
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("OPENBLAS_NUM_THREADS", "1")
    patch.setenv("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # type: ignore[import-untyped]  # noqa: F401

# A real LiveKit server, for the examples that need one.
from rooms.conftest import livekit, livekit_binary, pytest_runtestloop, webrtc_network  # noqa: F401

"""What a process has loaded when a session arrives: the same for every peer.

An image is a module with `preload()` (run once where processes can share it, before any fork) and
`prewarm()` (run in each process before it takes a session). Its environment is set before the peer starts.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from typing import Protocol, cast

IMAGE_VARIABLE = "GREENROOM_BENCH_IMAGE"


class ImageModule(Protocol):
    def preload(self) -> None: ...

    def prewarm(self) -> None: ...


@dataclass(frozen=True)
class Image:
    module: str
    text: str
    env: dict[str, str] = field(default_factory=dict)


_NO_MODELS = {"LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE": "0"}

IMAGES = {
    "trivial": Image("benchmarks.images.trivial_app", "an empty app", _NO_MODELS),
    "livekit": Image("benchmarks.images.livekit_app", "`livekit.agents` imported", _NO_MODELS),
    "livekit_rtc": Image(
        "benchmarks.images.livekit_rtc_app", "`livekit.agents`, LiveKit's native runtime started", _NO_MODELS
    ),
    "livekit_models": Image("benchmarks.images.livekit_models_app", "`livekit.agents` with its models loaded"),
}

# Peers and Greenroom alike start under these: OpenBLAS and onnxruntime would start threads at import, and
# a fork copies only the thread that calls it.
COMMON_ENV = {"OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}


def current() -> ImageModule:
    """The image this process was started for."""
    module = importlib.import_module(IMAGES[os.environ[IMAGE_VARIABLE]].module)
    return cast(ImageModule, module)

"""Declaration of this integration, for the loader."""

from __future__ import annotations

from .. import Integration

__all__ = ["LIVEKIT"]

_AGENT = f"{__package__}.agent"

LIVEKIT = Integration(
    framework="livekit.agents",
    needs="livekit-agents 1.5 or later",
    discovery=f"{_AGENT}.discovery",
    loading={
        "livekit.agents.cli.cli": f"{_AGENT}.main_guard",
        "livekit.agents.worker": f"{_AGENT}.main_guard",
    },
    before_fork={"livekit.rtc._ffi_client": f"{_AGENT}.native_runtime"},
    handing_over={
        "livekit.agents.cli.cli": f"{_AGENT}.handover",
        "livekit.agents.worker": f"{_AGENT}.handover",
    },
)

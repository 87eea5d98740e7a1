"""Address and greeting of a worker's control socket, for the worker and for commands."""

from __future__ import annotations

import re

__all__ = ["HELLO", "NONCE_BYTES", "control_address", "is_control_address"]

HELLO = b"greenroom token?"
NONCE_BYTES = 16


def control_address(port: int) -> str:
    """Return the abstract address (unix(7)) of the worker that listens on this port."""
    return f"\0greenroom/control/{port}"


def is_control_address(address: str) -> bool:
    """Return whether a worker may listen at an address."""
    return re.fullmatch("\0greenroom/control/[0-9]{1,5}", address) is not None

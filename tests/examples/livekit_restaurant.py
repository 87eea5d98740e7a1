"""An example under LiveKit's own worker, tried out at night: that Greenroom has changed nothing for it.

The file's name keeps it out of ``make test``; ``pytest tests/examples/livekit_restaurant.py`` runs it.
"""

from __future__ import annotations

from typing import Any

import pytest
from test_livekit_examples import Phone, telephone, texts

__all__ = ["telephone"]


@pytest.mark.parametrize("worker_kind", ["livekit"])
def test_livekits_own_worker_runs_the_restaurant_just_as_well(telephone: Any) -> None:
    async def calls(phone: Phone) -> None:
        robert = await phone.call("robert", "i would like to book a table", "a table for six people at nine", "goodbye")
        assert texts(robert, "heard")[2] == "A table for 6 at 9 is yours. What is your name?"
        assert (await phone.record("robert"))["table"] == {"people": 6, "hour": 21}

    telephone("restaurant_agent.py", calls)

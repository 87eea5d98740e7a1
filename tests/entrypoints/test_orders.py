"""Orders survive the journey, and nonsense is told from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.integrations.livekit.job_order import Acceptance, Order

texts = st.text(max_size=50)
accepts = st.builds(Acceptance, texts, texts, texts, st.dictionaries(texts, texts, max_size=3))
orders = st.builds(
    Order, st.binary(max_size=200), texts, texts, texts, accepts, st.integers(0, 99), st.booleans(), st.floats(0, 1e10)
)


@given(orders)
def test_an_order_is_what_it_was(order: Order) -> None:
    assert Order.decode(order.encode()) == order


@given(st.one_of(st.binary(max_size=100), st.none(), texts, st.integers()))
def test_what_is_no_order_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="description of a LiveKit job"):
        Order.decode(data)


@given(orders, st.integers(0, 60))
def test_a_damaged_order_is_refused_or_has_a_damaged_job(order: Order, length: int) -> None:
    """The job itself is checked by protobuf, in the process that runs it."""
    data = order.encode()[:length]
    with pytest.raises(ValueError, match="description of a LiveKit job"):
        Order.decode(data)


@given(accepts)
def test_an_acceptance_is_what_was_answered(accept: Acceptance) -> None:
    back = Acceptance.of(accept.answer(), "AJ_1")
    assert back.identity == (accept.identity or "agent-AJ_1")
    assert (back.name, back.metadata, back.attributes) == (accept.name, accept.metadata, accept.attributes)

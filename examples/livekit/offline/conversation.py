"""The items of a realtime conversation, in their order; and what its model knows when it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .dialogue import Moment
from .openai_api import new_id

__all__ = ["Conversation", "ItemError"]

Item = dict[str, Any]


class ItemError(ValueError):
    """The client asks for something that cannot be done to an item."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Conversation:
    def __init__(self) -> None:
        self.id = new_id("conv")
        self._items: list[Item] = []

    def insert(self, item: Item, after: str | None = None) -> str | None:
        """Put an item behind another (``"root"``: first; None: last); returns the id of the one before it."""
        item.setdefault("id", new_id("item"))
        if any(known["id"] == item["id"] for known in self._items):
            raise ItemError(f"Item with item_id already exists: {item['id']}", "item_create_duplicate_item_id")
        at = len(self._items) if after is None else 0 if after == "root" else self._index(after) + 1
        self._items.insert(at, item)
        return self._items[at - 1]["id"] if at else None

    def get(self, item_id: str) -> Item:
        return self._items[self._index(item_id)]

    def delete(self, item_id: str) -> None:
        del self._items[self._index(item_id)]

    def _index(self, item_id: str) -> int:
        for at, item in enumerate(self._items):
            if item["id"] == item_id:
                return at
        raise ItemError(f"No item with item_id {item_id}", "item_not_found")

    def moment(self, tools: Iterable[Mapping[str, Any]], tool_choice: object) -> Moment:
        """What has just happened. What a system message says is no event."""
        spoken = [item for item in self._items if item.get("role") != "system"]
        last = spoken[-1] if spoken else {}
        is_result = last.get("type") == "function_call_output"
        return Moment(
            tools=frozenset(tool["name"] for tool in tools),
            may_call=tool_choice != "none",
            said=text_of(last) if last.get("role") == "user" else None,
            result=last["output"] if is_result else None,
            result_of=self._tool_of(last["call_id"]) if is_result else None,
        )

    def _tool_of(self, call_id: str) -> str | None:
        calls = (item for item in self._items if item["type"] == "function_call")
        return next((item["name"] for item in calls if item["call_id"] == call_id), None)


def text_of(item: Mapping[str, Any]) -> str:
    """The words of a message: typed, or transcribed from its audio."""
    return " ".join(part.get("text") or part.get("transcript") or "" for part in item.get("content", ()))

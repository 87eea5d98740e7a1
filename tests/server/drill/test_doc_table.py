"""The page for operators shows the drill's own table."""

from __future__ import annotations

from pathlib import Path

from server.drill.doc_table import doc_table
from server.drill.incidents import INCIDENTS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "what-happened.md"


def test_the_page_shows_each_incident() -> None:
    assert len(INCIDENTS) >= 16
    assert doc_table() in PAGE.read_text(), f"write this table into {PAGE.name}:\n{doc_table()}"

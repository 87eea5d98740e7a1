"""tests/faults/README.md names each fault, and each has a test."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def test_each_fault_has_its_name_in_the_table_and_a_test() -> None:
    named = set(re.findall(r"^\| ([PJSW]\d+) \|", (TESTS / "faults" / "README.md").read_text(), re.MULTILINE))
    texts = (path.read_text() for path in TESTS.rglob("test_*.py"))
    tested = {name for text in texts for name in re.findall(r"def test_([PJSW]\d+)_", text)}
    assert named == tested

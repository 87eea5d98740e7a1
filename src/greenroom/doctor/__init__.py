"""Examination of an app on this machine: its costs and its obstacles. Findings are judged from facts.

This module has no imports, because :mod:`.probe` runs in an interpreter whose imports are measured.
"""

"""Mechanisms of the operating system, one small module for each. Standard library only."""

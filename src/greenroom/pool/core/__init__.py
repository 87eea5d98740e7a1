"""Core of the pool, which takes in events and returns effects. Pure: no clock, no event loop, no operating system."""

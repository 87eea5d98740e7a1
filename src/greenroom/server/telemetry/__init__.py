"""Observation of a worker: snapshot, metrics, event log, traces."""

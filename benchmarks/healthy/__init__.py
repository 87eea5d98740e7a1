"""Healthy load, watched by a real Prometheus with the shipped alerts: which alerts fire, and what the dashboard shows.

Calls come at a steady rate. Most return, and a few are cancelled. Meanwhile the code is reloaded twice, all places are
taken for a minute, and the zygote is killed once. Two alerts are meant to fire: "calls are turned away" in the full
minute, and "a zygote was lost". A reload is no alert. All other alerts are silent the whole time.
"""

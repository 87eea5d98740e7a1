"""The hostile hour: one worker that serves sessions while everything around and inside it attacks it.

``python -m benchmarks.hostile`` runs it, and ends with an account of each session. Three processes take part:
this one serves as the honest clients and keeps the account, another attacks, a third measures from outside.
"""

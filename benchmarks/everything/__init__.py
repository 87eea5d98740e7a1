"""The soak of everything: calls by HTTP and by a LiveKit server, while a worker is broken in every way at random.

``python -m benchmarks.everything --minutes 60 --seed 7``. Each call has an exact account: see :mod:`.judge`.
"""

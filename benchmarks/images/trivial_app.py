"""Nothing but the interpreter and the pool: what the machinery itself costs."""


def preload() -> None:
    pass


def prewarm() -> None:
    pass

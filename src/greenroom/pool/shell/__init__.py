"""Shell of the pool: it reports events to the core, and performs the effects that the core returns."""

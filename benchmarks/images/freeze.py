"""Imported last by a forkserver: a collection in a child must not copy the pages of what is loaded."""

import gc

gc.collect()
gc.freeze()

"""What lets the entrypoints of other frameworks run on Greenroom, unmodified."""

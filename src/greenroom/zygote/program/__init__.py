"""A script run as a program: once in the worker's life, in a process of its own, which hands over what to serve."""

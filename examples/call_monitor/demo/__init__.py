"""The demo: starts a real worker for the agent beside it, places calls over HTTP, and shows what happens.

None of this is needed to run the agent, and nothing in here loads the model: only the worker's zygote does.
"""

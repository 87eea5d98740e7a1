"""Code of the zygote and of the child.

Outside of Greenroom, these modules import only the standard library and the user's code.
"""

"""Command line of Greenroom."""

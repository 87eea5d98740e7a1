"""Greenroom's figures, measured beside its peers on the same work in the same run."""

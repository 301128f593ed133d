"""Pairs of views of one object."""

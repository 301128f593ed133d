"""Weights from and to files, in our names and in those of others."""

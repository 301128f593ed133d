"""Preparation of raw batches inside the compiled step."""

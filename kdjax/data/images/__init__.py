"""Data sets of labelled images, in memory or streamed."""

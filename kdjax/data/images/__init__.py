"""Sets of labelled images, in memory or streamed."""

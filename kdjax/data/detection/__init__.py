"""Data sets of pictures with boxes."""

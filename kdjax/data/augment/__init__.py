"""What the compiled step does to a raw batch."""

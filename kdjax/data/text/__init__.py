"""Text tasks: files, tokens and batches."""

"""Tasks on texts: files, tokens, batches."""

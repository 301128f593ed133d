"""Texts for language models: documents, tokenizers, and rows of packed tokens."""

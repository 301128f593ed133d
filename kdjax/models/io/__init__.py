"""Weight files of kdjax, PyTorch and Hugging Face: reading, writing and conversion."""

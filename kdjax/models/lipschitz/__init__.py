"""Layers and networks with a known Lipschitz constant."""

"""Methods: players with their terms, and critics. Import them from `kdjax.distill`."""

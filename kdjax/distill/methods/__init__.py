"""Methods: players with their terms, critics between them. Import them from `kdjax.distill`."""

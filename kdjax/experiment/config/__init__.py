"""Keys, defaults, overrides and checks of a config."""

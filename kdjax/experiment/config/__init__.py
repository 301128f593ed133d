"""Keys, defaults and checks of a config."""

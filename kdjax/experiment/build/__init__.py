"""From a config to what a run needs."""

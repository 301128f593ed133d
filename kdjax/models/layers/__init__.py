"""Building blocks that networks share, and the bridge from Flax."""

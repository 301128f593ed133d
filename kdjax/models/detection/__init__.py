"""The two-stage detector and its parts."""

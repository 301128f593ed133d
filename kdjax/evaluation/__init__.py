"""Predictions and their metrics, by task."""

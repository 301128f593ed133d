"""From an experiment file to a report; no other package reads configs."""

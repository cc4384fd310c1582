"""Room hub."""

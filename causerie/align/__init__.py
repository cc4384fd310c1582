"""Room align."""

"""Room chat."""

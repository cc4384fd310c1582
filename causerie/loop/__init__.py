"""Room loop."""

"""Room starter."""

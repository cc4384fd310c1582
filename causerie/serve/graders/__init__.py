"""Graders: what an answer is worth, by comparison, by similarity, or by asking a model."""

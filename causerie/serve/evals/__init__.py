"""v1/evals: what is measured, runs over data, and what each sample was worth."""

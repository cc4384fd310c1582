"""v1/fine_tuning: jobs that our own trainer runs in a process of its own, their events, checkpoints and graders."""

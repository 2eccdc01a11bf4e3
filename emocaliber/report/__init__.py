"""What people read of an evaluation: the two logs, `metrics.json` and the figures."""

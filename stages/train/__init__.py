"""Training: a stage as work, its folder, its result, and the gates that it has to pass."""

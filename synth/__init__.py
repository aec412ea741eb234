"""Synthetic data: pure functions over problems, samples and verdicts. Knows nothing of Ray, S3 or of models."""

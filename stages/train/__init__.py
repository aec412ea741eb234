"""Training as Work."""

"""The parts of the reasoning pipeline: how problems are sampled, and what of the samples becomes data."""

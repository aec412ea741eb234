"""Generation: an engine that batches continuously over pages of keys and values."""

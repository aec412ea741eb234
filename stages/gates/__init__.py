"""Gates: what a stage of training has to pass before its result becomes a version."""

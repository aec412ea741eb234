"""What the README claims in figures, rerun by `make bench`."""

"""What changes a sample while it is trained on, so that no two epochs are the same."""

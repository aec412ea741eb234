"""Input files before they are anybody's objects."""

"""What people ask of a lake, and take out of it."""

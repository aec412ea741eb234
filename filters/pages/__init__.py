"""What is told of a page before its text is extracted."""

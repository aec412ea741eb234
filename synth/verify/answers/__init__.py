"""Answers as values: which text is the answer, what it is worth, and whether two are the same."""

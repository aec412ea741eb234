"""Answers drawn for a terminal, or printed as JSON."""

"""Evaluation without a lake: what is asked, how answers are judged, and what the numbers are worth."""

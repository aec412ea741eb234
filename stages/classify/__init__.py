"""Classifiers of texts: what they are trained on, their training, and what it is worth."""

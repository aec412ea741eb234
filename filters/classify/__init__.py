"""Text classifiers: the fastText models that people train of their own texts, and lists of words."""

"""Gates between pipelines: whether a version may go on to what is made from it."""

"""Training: a stage as data, what it minimises, and the loop that carries it out."""

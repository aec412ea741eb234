"""What is seen of a training run while it runs: a live line for people, and services that draw its metrics."""

"""Training: objectives and their losses, and what minimises them."""

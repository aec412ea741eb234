"""Selection: which samples become fine-tuning data, which pairs of them preferences, and what that does to groups."""

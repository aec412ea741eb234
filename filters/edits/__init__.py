"""What rewrites a text before it is compared and shipped, and how personal data is found in it."""

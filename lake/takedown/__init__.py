"""Records that must leave every version, and must not come back."""

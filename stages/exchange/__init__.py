"""A version handed to people who have no lake: files in the forms of their tools, with metadata and a card."""

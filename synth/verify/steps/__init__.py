"""The steps of a chain: equations in running text, and whether they hold."""

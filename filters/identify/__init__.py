"""Who says what language a text is in: lid.176 and other fastText models, and packages where they are installed."""

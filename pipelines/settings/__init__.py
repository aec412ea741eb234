"""Configuration: one file, settings over it, and how faults in them are said."""

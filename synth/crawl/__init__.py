"""A crawl of generated pages, with planted duplicates and damage, and the truth about it."""

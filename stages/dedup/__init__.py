"""Exact duplicates: of records, of paragraphs."""

"""Filters over records with images: their sizes, and the texts that are learned beside them."""

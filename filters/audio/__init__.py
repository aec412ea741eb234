"""Filters over records with clips: how long and how loud they are, how they sound, and what is said in them."""

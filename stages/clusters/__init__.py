"""Clusters of near duplicates, and the survivors of each."""

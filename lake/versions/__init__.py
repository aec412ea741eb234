"""Versions of datasets: manifests, slots, growth, the runs that are about to commit."""

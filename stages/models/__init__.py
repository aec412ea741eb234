"""Models in a lake: versions of them stored and loaded, engines hosted."""

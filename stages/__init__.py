"""How it is done: work split into pieces, run on Ray, every record accounted for."""

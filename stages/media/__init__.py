"""What records with images and records with clips have in common: where media stand in turns, copies, shards."""

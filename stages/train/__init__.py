"""Training: a stage carried out as Work, the folder of a run, what it made as shards of a version, its gates."""

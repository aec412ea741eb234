"""`make demo`: the main job end to end, in acts."""

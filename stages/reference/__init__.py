"""What a reference model says of the windows of a stage: the work that asks it, and the tables that keep it."""

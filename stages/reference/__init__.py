"""What is asked of a reference model before a stage that compares with it."""

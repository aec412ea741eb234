"""What a version is to Python: a table in a notebook, records and windows for PyTorch."""

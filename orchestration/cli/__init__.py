"""The `grist` command: a thin skin over functions of `lake` and `pipelines`."""

"""Commands that train, evaluate, ask, serve, import and export models."""

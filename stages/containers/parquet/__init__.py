"""Parquet: where rows stand, without decoding a value, and what they hold."""

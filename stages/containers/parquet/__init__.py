"""Parquet: where rows stand, told without decoding a value, and what they hold."""

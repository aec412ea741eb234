"""Checkpoints in the formats of transformers and peft, read and written."""

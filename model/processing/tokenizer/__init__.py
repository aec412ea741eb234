"""Texts to tokens and back: what a `tokenizer.json` says, and byte-pair encoding."""

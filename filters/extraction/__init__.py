"""The main text of a web page, in one pass over its bytes: blocks, their features, a trained judgement of each."""

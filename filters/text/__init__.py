"""What filters share of a batch of texts: lines, words, and what a character is to a word."""

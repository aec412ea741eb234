"""What is compiled for words and measures of texts; each file is compiled with those that it imports."""

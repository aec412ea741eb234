"""fastText's classifiers without fastText: their files, read by ourselves, and a kernel that labels lines with them."""

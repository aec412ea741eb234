"""MinHash signatures of texts, and compiled kernels found again by their content."""

"""Models of the lake in EleutherAI's lm-evaluation-harness."""

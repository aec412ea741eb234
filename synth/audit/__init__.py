"""How good a verifier is: its verdicts on samples that somebody labelled as right or wrong."""

"""Is a chain of thought right? Verifiers of answers, of steps and of programs, and what is measured about them."""

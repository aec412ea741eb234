"""New problems from those that there are: their numbers drawn again, their answers computed."""

"""How work is run: on Ray or here, a bounded number in flight, and what of it is done."""

"""Mixtures: tokens, the plan of what is drawn, packed windows."""

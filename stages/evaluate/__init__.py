"""Evaluation of models of the lake on versions of the lake."""

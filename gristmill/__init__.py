"""gristmill: accounted, versioned training data for compact models, and a model trained on them."""

from __future__ import annotations

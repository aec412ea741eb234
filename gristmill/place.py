"""Where the code lies: a checkout, or the folder that pip installed into. Modules of the packages cannot count folders
from their own file: in a checkout they are reached through links (see `gristmill`)."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The folder in which `gristmill` lies: of a checkout, the one with pyproject.toml and conf."""

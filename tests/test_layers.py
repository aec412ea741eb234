"""Imports go down only: `make layers` as a test, so that CI sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_imports_go_down_only():
    lint_imports = Path(sys.executable).parent / "lint-imports"
    run = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_top_level_module_shadows_the_standard_library():
    # The repo root is Ray's working directory and stands first on sys.path of every worker.
    ours = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert "lake" in ours
    assert not ours & set(sys.stdlib_module_names)

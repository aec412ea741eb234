"""Imports go down only, and never in a circle: `make layers` as a test, so that CI sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]


def test_imports_go_down_only():
    lint_imports = Path(sys.executable).parent / "lint-imports"
    run = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def imports_of(package: str) -> dict[str, set[str]]:
    """Module -> what it imports of its package, within functions too. Without the door and the public API, which stand
    above all else."""
    graph = grimp.build_graph(package, cache_dir=None)
    modules = graph.modules - {package}
    return {module: set(graph.find_modules_directly_imported_by(module)) & modules for module in modules}


def circles(imports: dict[str, set[str]]) -> list[str]:
    """What is left when modules that import nothing that is left are taken away, again and again."""
    left = {module: set(others) for module, others in imports.items()}
    while leaves := [module for module, others in left.items() if not others]:
        for module in leaves:
            del left[module]
        for others in left.values():
            others.difference_update(leaves)
    return sorted(left)


def test_no_file_imports_itself_through_others():
    imports = imports_of("gristmill")
    assert len(imports) > 250
    for module, others in imports.items():
        others.discard(module)
    assert circles(imports) == []


def test_a_circle_is_found_and_a_chain_is_none():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_a_room_is_about_a_dozen_files():
    rooms: dict[str, int] = {}
    for package in ("filters", "synth", "model", "lake", "stages", "pipelines", "orchestration"):
        for path in (ROOT / package).rglob("*.py"):
            rooms[str(path.parent.relative_to(ROOT))] = rooms.get(str(path.parent.relative_to(ROOT)), 0) + 1
    assert {room: files for room, files in rooms.items() if files > 15} == {}


def test_every_package_is_a_link_that_git_carries():
    for package in ("filters", "synth", "model", "lake", "stages", "pipelines", "orchestration"):
        assert (ROOT / "gristmill" / package).readlink() == Path("..", package)


def test_no_top_level_module_shadows_the_standard_library():
    # The repo root is Ray's working directory and stands first on sys.path of every worker.
    modules = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert "lake" in modules
    assert not modules & set(sys.stdlib_module_names)

"""The configurations that come with gristmill, by name: `grist run web` works in any folder.

In a checkout they are the files of conf/; the wheel carries the same files as data, and its record says where pip put
them. A path is always a path; only a bare word that names no file here is looked up.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from gristmill import place
from gristmill.pipelines.settings.config import BadConfig

CHECKOUT = place.ROOT / "conf"
INSTALLED = "share/gristmill/conf"
"""Below the environment's own folder (pyproject.toml, data-files)."""


def configurations() -> dict[str, Path]:
    """Name -> file."""
    if CHECKOUT.is_dir():
        files = list(CHECKOUT.glob("*.yaml"))
    else:
        files = [Path(str(file.locate())) for file in _recorded() if file.match(f"{INSTALLED}/*.yaml")]
    return {file.stem: file.resolve() for file in sorted(files)}


def _recorded() -> list[importlib.metadata.PackagePath]:
    try:
        return importlib.metadata.files("gristmill") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def find_config(given: Path) -> Path:
    """The file that `given` names: itself, or what comes with gristmill under this name. Raises BadConfig."""
    shipped = configurations()
    named = len(given.parts) == 1 and given.name in shipped
    if given.is_file() or (given.exists() and not named):  # a folder `model` is no configuration
        return given
    if len(given.parts) == 1 and not given.suffix:
        if named:
            return shipped[given.name]
        raise BadConfig(f"{given}: no such file, and no configuration of this name: there are {', '.join(shipped)}")
    hint = f"; `{given.stem}` alone is the one that comes with gristmill" if given.stem in shipped else ""
    raise BadConfig(f"{given}: there is no such file{hint}")

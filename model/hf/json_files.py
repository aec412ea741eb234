"""JSON files of a checkpoint, with every fault reported by the file's name. Imports nothing that is slow to import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_LARGEST_JSON = 1 << 26  # bytes; an index of 100,000 tensors has a sixth of it


def needed(file: Path) -> Path:
    """Raises ValueError if it is not there; says so if what is there is pickled."""
    if file.is_file():
        return file
    pickled = sorted(child.name for child in file.parent.glob("*.bin"))
    hint = f" ({', '.join(pickled)} is not read: unpickling runs code; convert it to safetensors)" if pickled else ""
    raise ValueError(f"{file} is missing{hint}")


def json_object(file: Path) -> dict[str, Any]:
    """The fields of a JSON file. Raises ValueError for other than an object of fields."""
    size = needed(file).stat().st_size
    if size > _LARGEST_JSON:
        raise ValueError(f"{file}: {size:,} bytes; allowed are {_LARGEST_JSON:,}: no file of this name is so large")
    try:
        values = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: holds {type(values).__name__}; an object of fields is needed")
    return values

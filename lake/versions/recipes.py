"""In what recipes differ, and which of it can decide what is kept."""

from __future__ import annotations

from typing import Any

from gristmill.lake.accounts.receipt import canonical
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import NoSuchVersion, Versions

_NO_FATE = ("dataset", "extends", "forget", "limit", "max_quarantine_rate", "scan.chunk_bytes", "shards", "suppression")
"""Keys of a recipe that do not decide which records of an input are kept (or, of a takedown, for any recipe alike)."""


def settings_that_differ(a: dict[str, Any], b: dict[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    """(dotted key, a, b) of all in which two recipes or configs differ, in the order of their keys. A section that one
    of them has switched off (null) is a single difference, whatever is set in the other."""
    changes: list[tuple[str, Any, Any]] = []
    for key in dict.fromkeys([*a, *b]):
        left, right = a.get(key), b.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            changes += [(f"{key}.{inner}", *values) for inner, *values in settings_that_differ(left, right)]
        elif key in a and key in b and None in (left, right):
            changes += [(key, left, right)] if left != right else []
        else:
            changes += differences(*(_flat({key: side[key]}) if key in side else {} for side in (a, b)))
    return tuple(changes)


def recipe_changes(a: dict[str, Any], b: dict[str, Any]) -> tuple[str, ...]:
    """The keys that can decide what is kept in which two recipes differ, dotted, in order."""
    return tuple(
        key
        for key, _, _ in sorted(differences(_flat(a), _flat(b)), key=lambda change: change[0])
        if not any(key == name or key.startswith(f"{name}.") for name in _NO_FATE)
    )


def changed_on_the_way(versions: Versions, manifest: Manifest) -> tuple[str, ...]:
    """In what a version's ancestors were made otherwise than itself: keys of the recipe, and stages whose VERSION or
    packages whose release is another; or that one of them is not in this lake. Empty for one that extends nothing."""
    changes: set[str] = set()
    own = {stage.name: stage.edition for stage in manifest.stages}
    compared: set[bytes] = set()
    try:
        for ancestor in Catalogue(versions).ancestors(manifest):
            made_by = canonical([ancestor.recipe, ancestor.stages])
            if made_by in compared:  # as nearly all of a thousand are
                continue
            compared.add(made_by)
            changes.update(recipe_changes(ancestor.recipe, manifest.recipe))
            both = own.keys() & ancestor.stages.keys()
            changes.update(f"stage {name}" for name in both if own[name] != ancestor.stages[name])
    except NoSuchVersion:
        changes.add("an ancestor that is not in this lake")
    return tuple(sorted(changes))


def _flat(data: Any, path: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; an empty one is a value."""
    if not isinstance(data, dict) or not data:
        return {path: data}
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flat(value, f"{path}.{name}" if path else name)
    return flat


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, a, b) where they differ; a key that only one of them has differs, though its value be None."""
    keys = dict.fromkeys([*a, *b])
    return [(k, a.get(k), b.get(k)) for k in keys if k not in a or k not in b or a[k] != b[k]]

"""What the columns of a table are, in the words of `datasets`: as JSON, which Parquet carries, and as YAML of a card.

Written from the Arrow schema, with a row for each kind of type: a type without one is an error here, and not a column
that a reader cannot load. `datasets` itself is not needed for it.
Source: datasets 4 and 5, features/features.py (`Features.to_dict`, `_to_yaml_list`).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How `datasets` stores a picture or a clip."""
MEDIA_FEATURES = {"images": "Image", "audio": "Audio"}
"""Columns with lists of files -> the feature of a file."""
_NAMES = {
    pa.float16(): "float16",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.string(): "string",
    pa.large_string(): "large_string",
    pa.binary(): "binary",
    pa.large_binary(): "large_binary",
    pa.bool_(): "bool",
    pa.null(): "null",
    pa.date32(): "date32",
}


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """As `Features.to_dict` writes them. Raises ValueError for a type that has no feature."""
    return {field.name: _of_files(field) or _feature(field.type) for field in schema}


def yaml_features(schema: pa.Schema) -> list[dict[str, Any]]:
    """As `dataset_info` of a card lists them. Raises ValueError for a type that has no feature."""
    return [{"name": name, **_yaml(feature)} for name, feature in features_of(schema).items()]


def _of_files(field: pa.Field) -> dict[str, Any] | None:
    if field.name not in MEDIA_FEATURES or field.type != pa.list_(FILE):
        return None
    return {"feature": {"_type": MEDIA_FEATURES[field.name]}, "_type": "List"}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_large_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "LargeList"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": dtype_of(kind), "_type": "Value"}


def dtype_of(kind: pa.DataType) -> str:
    """A type without parts, as `datasets` calls it. Raises ValueError for one that it does not know."""
    if kind in _NAMES:
        return _NAMES[kind]
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
        return str(kind)  # int32, timestamp[us, tz=UTC]
    raise ValueError(
        f"a column of type {kind} has no feature in `datasets`; allowed are integers, floats, booleans, texts, bytes,"
        " timestamps, and lists and structs of them: use --as webdataset"
    )


def _yaml(feature: dict[str, Any]) -> dict[str, Any]:
    """One feature, by the shorthands that `datasets` uses."""
    kind = feature.get("_type")
    if kind == "Value":
        return {"dtype": feature["dtype"]}
    if kind in ("List", "LargeList"):
        inner = _yaml(feature["feature"])
        name = "list" if kind == "List" else "large_list"
        if list(inner) in (["dtype"], ["struct"]):
            return {name: inner.popitem()[1]}
        return {name: inner}
    if isinstance(kind, str):
        return {"dtype": kind.lower()}
    return {"struct": [{"name": name, **_yaml(part)} for name, part in feature.items()]}

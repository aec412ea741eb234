"""Fields of a config.json as others name them: read by tables, each of the type of its default, refused by name.

A table says of each field what a missing one means, and where a file has a name of its own, that; what a file may only
say in one way is a table too. A hostile file gets an error, never a model of another size or an exception of another
kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]
Fields = dict[str, Any]
"""Fields by name, and the default of the reference's class, whose type a value must have."""

Renamed = dict[str, tuple[str, Any]]
"""Our name of a field: (that of the file, the default of the file's class)."""

Fixed = dict[str, tuple[Any, ...]]
"""Fields with one meaning here: the values that have it, the default of their class first."""


_SHOWN = 200  # characters of a value in an error


def nested(values: Values, name: str, where: str = "") -> Values:
    """An object within `values`; {} where it is null or missing."""
    inner = values.get(name)
    if inner is None:
        return {}
    if not isinstance(inner, Mapping):
        raise refused(where + name, inner, "an object of fields")
    return inner


def read_fields(values: Values, fields: Fields, where: str) -> dict[str, Any]:
    """The fields of a file, each of the type of its default. `where`: what stands before a name in an error. Raises
    ValueError."""
    return {name: typed(values.get(name, default), default, where + name) for name, default in fields.items()}


def read_renamed(values: Values, fields: Renamed, where: str) -> dict[str, Any]:
    """As `read_fields`, of a file with other names; the result has ours."""
    return {
        name: typed(values.get(file_name, default), default, where + file_name)
        for name, (file_name, default) in fields.items()
    }


def typed(value: Any, default: Any, name: str) -> Any:
    """A value if it is of the type of `default` and of a size that can be; whole numbers do for floats. Raises
    ValueError that calls it `name`."""
    kind = type(default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number and 0 <= value < 1e30:  # no NaN either; nothing here has a sign
        return float(value)
    if kind is float or (kind is int and number and abs(value) > 1 << 40):
        raise refused(name, value, "a number from 0 on" if kind is float else "a whole number of a size that can be")
    if not isinstance(value, kind) or (kind is int and not number):
        raise refused(name, value, {int: "a whole number", float: "a number", bool: "true and false"}[kind])
    return value


def written_fields(part: Any, fields: Fields, fixed: Fixed) -> dict[str, Any]:
    """The fields of a config of ours for a file, and what is said in one way alone."""
    own = {name: getattr(part, name) for name in fields}
    return {**own, **{name: values[0] for name, values in fixed.items()}}


def check_fixed(values: Values, fixed: Fixed, where: str) -> None:
    """Raises ValueError for a field that says something else than it may."""
    for name, allowed in fixed.items():
        if (value := values.get(name, allowed[0])) not in allowed:
            raise refused(where + name, value, " or ".join(repr(choice) for choice in allowed))


def check_head_dim(values: Values, read: dict[str, Any], where: str) -> None:
    """Raises ValueError for a head_dim other than hidden_size / num_attention_heads, the fields `read` of the file."""
    heads = max(read["num_attention_heads"], 1)  # none: the part's config says so
    if (given := values.get("head_dim")) is None:
        return
    if typed(given, 0, f"{where}head_dim") * heads != read["hidden_size"]:
        raise refused(f"{where}head_dim", given, f"hidden_size / num_attention_heads = {read['hidden_size'] / heads:g}")


def refused(name: str, value: Any, allowed: str) -> ValueError:
    """What to raise for a field whose value is not implemented."""
    return ValueError(f"config.json: {name}={shown(value)} is not implemented here; allowed: {allowed}")


def shown(value: Any) -> str:
    """A value of a file in an error: it may be of any size and depth."""
    try:
        text = repr(value)
    except RecursionError:
        return f"(a {type(value).__name__} nested too deep to show)"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

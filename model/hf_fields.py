"""Fields of a config.json as others name them: read by tables, each of the type of its default, refused by name.

A table says how a file calls each field of ours and what a missing one means; what a file may only say in one way is a
table too. A hostile file gets an error, never a model of another size or an exception of another kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]
Fields = dict[str, tuple[str, Any]]
"""Our name: (theirs, the default of their class), whose type a value must have."""

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


def read_fields(values: Values, names: Fields, where: str) -> dict[str, Any]:
    """Our fields of their values, each of the type of its default."""
    return {
        ours: typed(values.get(theirs, default), default, where + theirs) for ours, (theirs, default) in names.items()
    }


def typed(value: Any, default: Any, name: str) -> Any:
    kind = type(default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number and 0 <= value < 1e30:  # no NaN either; nothing here has a sign
        return float(value)
    if kind is float or (kind is int and number and abs(value) > 1 << 40):
        raise refused(name, value, "a number from 0 on" if kind is float else "a whole number of a size that can be")
    if not isinstance(value, kind) or (kind is int and not number):
        raise refused(name, value, {int: "a whole number", float: "a number", bool: "true and false"}[kind])
    return value


def written_fields(part: Any, names: Fields, fixed: Fixed) -> dict[str, Any]:
    read = {theirs: getattr(part, ours) for ours, (theirs, _) in names.items()}
    return {**read, **{name: values[0] for name, values in fixed.items()}}


def check_fixed(values: Values, fixed: Fixed, where: str) -> None:
    for name, allowed in fixed.items():
        if (value := values.get(name, allowed[0])) not in allowed:
            raise refused(where + name, value, " or ".join(repr(one) for one in allowed))


def check_head_dim(values: Values, read: dict[str, Any], where: str) -> None:
    heads = max(read["heads"], 1)  # none: the part's config says so
    if (given := values.get("head_dim")) is None:
        return
    if typed(given, 0, f"{where}head_dim") * heads != read["hidden"]:
        raise refused(f"{where}head_dim", given, f"hidden_size / num_attention_heads = {read['hidden'] / heads:g}")


def refused(name: str, value: Any, allowed: str) -> ValueError:
    return ValueError(f"config.json: {name}={shown(value)} is not implemented here; allowed: {allowed}")


def shown(value: Any) -> str:
    """A value of a file in an error: it may be of any size and depth."""
    try:
        text = repr(value)
    except RecursionError:
        return f"(a {type(value).__name__} nested too deep to show)"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

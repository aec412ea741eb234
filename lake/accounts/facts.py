"""Facts: small typed results of a piece of work, between a frozen dataclass and the JSON of its receipt.

A stage hands out a dataclass; the receipt keeps a plain dict, so that it can be read without the stage's code; whoever
needs the facts names the class and gets it back. Nothing is guessed: an unknown field, a missing one without a default,
or a value of another type is an error, since facts that change their form need a raised VERSION.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

FactsT = TypeVar("FactsT")


@dataclasses.dataclass(frozen=True)
class NoFacts:
    """Of a stage that has none to give."""


class WrongFacts(TypeError):
    """Facts that are not of the form of the class they are read as."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def facts_to_json(facts: Any) -> dict[str, Any]:
    """The fields of a frozen dataclass as JSON has them. Raises WrongFacts for values that are not
    of the types of their fields."""
    if not dataclasses.is_dataclass(facts) or isinstance(facts, type):
        raise WrongFacts(f"facts are a {type(facts).__name__}; give a frozen dataclass")
    try:
        fields: dict[str, Any] = from_json(_adapter(type(facts)).dump_json(facts, warnings="error"))
    except PydanticSerializationError as error:
        raise WrongFacts(f"{type(facts).__name__}: {str(error).splitlines()[-1].strip()}") from error
    return fields


def facts_from_json(kind: type[FactsT], fields: Mapping[str, Any], where: str) -> FactsT:
    """The dataclass `kind` of fields that were read back. `where`: whose facts they are, for messages.

    Raises WrongFacts for a field that `kind` does not know, lacks without a default, or has with another type.
    """
    remedy = f"Raise the VERSION of the stage whose facts changed, or give {kind.__name__} a default"
    unknown = sorted(fields.keys() - {field.name for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise WrongFacts(
            f"{where}: its facts have {', '.join(unknown)}, of which {kind.__name__} knows nothing. {remedy}."
        )
    try:
        facts: FactsT = _adapter(cast(Hashable, kind)).validate_json(to_json(dict(fields)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise WrongFacts(f"{where}: its facts are no {kind.__name__} ({name}: {first['msg']}). {remedy}.") from error
    return facts

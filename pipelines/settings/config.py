"""Configuration: one YAML file, `--set a.b=c` over it, one resolved and validated object.

`recipe` is identity: it decides the data and enters the run key. `run` is how and where: never part of a key.
Leaves are the frozen dataclasses that stand beside the code that uses them; unknown keys are an error that names
the path and what is allowed there.
"""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gristmill.lake.inputs.sources import is_absolute
from gristmill.lake.versions.markers import is_exact
from gristmill.pipelines.settings.plain import one_line
from gristmill.pipelines.settings.yaml_text import MAX_CHARACTERS, BadYaml, read_yaml, unshared

LAKE_ENV = "GRIST_LAKE"
_PATTERN = re.compile(r"(^|[\[,])\s*\*")  # of files, where YAML reads an alias
_SHOWN = 200
"""Characters of an offending value or key that a message quotes."""


class BadConfig(ValueError):
    """The configuration cannot be used; the message says where, what was found, and what is allowed.

    One line for each mistake, in which nothing acts on a terminal: a key or value may come from anywhere.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(one_line(line) for line in message.split("\n")))


class Root(BaseModel):
    """The base of every section of a config: frozen, and an unknown key or a number that is not finite is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Run(Root):
    """How and where: none of this can change the data."""

    lake: str = ""
    workers: int = Field(default=2, ge=0, description="pieces of work in flight; 0: in this process, without Ray")
    shared_filesystem: bool = False
    patience_seconds: float = Field(default=600, ge=0, description="how long to wait for a store or cluster")


T = TypeVar("T", bound=Root)


def load(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises BadConfig."""
    name = one_line(str(path))
    try:
        with path.open(encoding="utf-8") as file:
            data = read_yaml(file.read(MAX_CHARACTERS + 1))
    except FileNotFoundError:
        raise BadConfig(f"{name}: there is no such file") from None
    except BadYaml as error:
        raise BadConfig(f"{name}: {one_line(str(error))}") from None
    except (OSError, UnicodeDecodeError) as error:  # a folder; no permission; a file that is no text
        raise BadConfig(f"{name}: cannot be read as a YAML file: {one_line(str(error))}") from None
    if not isinstance(data, dict):
        raise BadConfig(f"{name}: expected a mapping at the top, found {type(data).__name__}")
    return data


def override(data: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """`a.b=c` laid over `data`; the value is YAML, so that lists, numbers and null can be given. An entry of a list has
    its number, from 0, for a name: `recipe.stages.0.steps=10`. Raises BadConfig."""
    result: dict[str, Any] = unshared(dict(data))
    for setting in settings:
        dotted, equals, text = setting.partition("=")
        shown = _quoted(setting)
        if not equals or not all(dotted.split(".")):
            raise BadConfig(f"--set {shown}: expected a.b=value")
        try:
            value = read_yaml(text)
        except BadYaml as error:
            hint = "; a pattern such as [*.jsonl] wants quotes: ['*.jsonl']" if _PATTERN.search(text) else ""
            raise BadConfig(f"--set {shown}: the value is {one_line(str(error))}{hint}") from None
        *parents, leaf = dotted.split(".")
        node: dict[str, Any] | list[Any] = result
        for name in parents:
            child = node[_place(node, name, shown)] if isinstance(node, list) else node.setdefault(name, {})
            if not isinstance(child, dict | list):
                raise BadConfig(f"--set {shown}: {name!r} is a value, not a section")
            node = child
        if isinstance(node, list):
            node[_place(node, leaf, shown)] = value
        else:
            node[leaf] = value
    return result


def lay_over(section: Any, data: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `data`, key by key in sections of the config class `section`. What is no section is replaced as
    a whole: a value, a list, and a mapping of names, as a mixture's sources."""
    result = dict(data)
    for key, value in over.items():
        inner = _section_at(section, key)
        if inner is not None and isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = lay_over(inner, result[key], value)
        else:
            result[key] = value
    return result


def _section_at(section: Any, key: str) -> Any:
    """The config class or leaf that a key holds; None for a key that is not there, or holds none."""
    hints = typing.get_type_hints(section) if isinstance(section, type) else {}
    kind = _leaf(hints[key]) if key in hints else None
    is_section = isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))
    return kind if is_section else None


def _place(entries: list[Any], name: str, shown: str) -> int:
    """The entry of a list that a key names by its number. Raises BadConfig."""
    if not re.fullmatch(r"[0-9]{1,9}", name) or int(name) >= len(entries):
        there = f"0 to {len(entries) - 1}" if entries else "none, it is empty"
        raise BadConfig(f"--set {shown}: {name!r} is no entry of this list: there are {there}")
    return int(name)


def _quoted(value: Any) -> str:
    """A value as Python writes it, on one line, and no longer than a message can be."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; lists without end
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def validate(model: type[T], data: Mapping[str, Any]) -> T:
    """The config object. Raises BadConfig with one line for every mistake."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, dict(item)) for item in error.errors()]
        raise BadConfig("\n".join(lines)) from None


def _explain(model: type[Any], error: dict[str, Any]) -> str:
    path = one_line(".".join(str(part) for part in error["loc"]))[:_SHOWN]
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = _keys_at(model, error["loc"][:-1])
        return f"{path}: unknown key; allowed here: {', '.join(allowed) or 'none'}"
    if error["type"] == "value_error":  # a check of this project, which names the value
        return f"{path}: {one_line(str(error['ctx']['error']))}"
    if error["type"] == "tuple_type":
        return f"{path}: expected a list such as [a, b], found {_quoted(error['input'])}"
    if error["type"] in ("dataclass_type", "model_type"):
        allowed = _keys_at(model, error["loc"])
        return f"{path}: expected a section with {', '.join(allowed) or 'no keys'}, found {_quoted(error['input'])}"
    return f"{path}: {error['msg']}, found {_quoted(error['input'])}"


def _keys_at(model: Any, loc: tuple[str | int, ...]) -> list[str]:
    """The keys allowed at a place; none where any are, as in a mapping of names that the user gives."""
    for part in loc:
        model = _leaf(model)
        origin, arguments = typing.get_origin(model), typing.get_args(model)
        if origin in (dict, list, tuple):  # what its entries are, whatever they are called
            model = arguments[-1] if origin is dict else arguments[0]
        elif isinstance(model, type) and part in (hints := typing.get_type_hints(model)):
            model = hints[part]
    model = _leaf(model)
    fields = dataclasses.fields(model) if dataclasses.is_dataclass(model) else ()
    return sorted([f.name for f in fields] or list(getattr(model, "model_fields", {})))


def _leaf(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return hint


def lake_uri(given: str | None, configured: str, *, in_job: bool) -> str:
    """The lake's address: --lake, else run.lake, else $GRIST_LAKE. Raises BadConfig."""
    uri = given or configured or os.environ.get(LAKE_ENV, "")
    if not uri:
        raise BadConfig(
            f"no lake: give --lake, run.lake in the config, or ${LAKE_ENV} (a directory or s3://bucket/prefix)"
        )
    if "://" in uri or os.path.isabs(uri):
        return uri
    if in_job:
        raise BadConfig(
            f"the lake {uri!r} is relative; inside a job that is a temporary folder. Give an absolute path or s3://"
        )
    return os.path.abspath(uri)


def check_inputs_absolute(inputs: Iterable[str], key: str = "recipe.inputs") -> None:
    """Raises BadConfig for a relative input inside a job: it would name a file of the job's temporary folder."""
    for uri in inputs:
        if not is_absolute(uri) and not is_exact(uri):
            raise BadConfig(f"{key}: {uri!r} is relative; inside a job give an absolute path or s3://")


def inside_job() -> bool:
    """Whether this process is the driver of a submitted Ray job: Ray sets this variable, by this name, for it."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ

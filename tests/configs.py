"""Configs that tests resolve: the shipped file of the web pipeline with settings over it, and the keys of one."""

from __future__ import annotations

from pathlib import Path

from gristmill.pipelines.command import Request, resolve
from gristmill.pipelines.web import WebConfig

CONF = Path(__file__).parents[1] / "conf" / "web.yaml"


def resolved(*settings: str, **request: object) -> WebConfig:
    """conf/web.yaml with `--set` for each of `settings`, as a run gets it. `request`: other fields of the request."""
    return resolve(Request(CONF, settings, **{"lake": "/lake", **request}))


def keys(data: object, at: str = "") -> set[str]:
    """The dotted path of every value in a config, each with a dot before it: `.recipe.scan.chunk_bytes`."""
    if not isinstance(data, dict) or not data:
        return {at}
    return {key for name, value in data.items() for key in keys(value, f"{at}.{name}")}

"""What is asked of Ray: a resolved config without its run settings, at one lake, and the names that follow from it.

Its key stands in the job's metadata and, cut, in the submission id `{dataset}-{key}-{attempt}`. Settings travel as an
argument of the job's command; no secret does, Ray shows it in clear.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.accounts.receipt import canonical
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.secrets import Secrets
from gristmill.pipelines.command import Request, resolve
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.settings.config import BadConfig

LONGEST_ARGUMENT = 100_000  # bytes; Linux takes 128 KiB
_PLACE = re.compile(r"\$\{([a-z0-9][a-z0-9._-]{0,99})\}")
"""Of a dataset's exact version in a setting: ${mixture}."""


@dataclass(frozen=True)
class Asked:
    """What a flow was asked for, before ${...} in its settings are exact versions. `outline`: the config with stand-ins
    in their places, which says where the lake is."""

    source: Path | Mapping[str, Any]
    settings: tuple[str, ...]
    outline: PipelineConfig

    @classmethod
    def of(cls, config: str | Mapping[str, Any], settings: Sequence[str], lake: str | None) -> Asked:
        """Raises BadConfig for what no run could use: also for a secret, which Prefect would show."""
        source = Path(config) if isinstance(config, str) else config
        outline = [_PLACE.sub(r"\1@v1", setting) for setting in settings]
        Secrets.of_environment().check_settings(settings)
        return cls(source, tuple(settings), resolve(Request(source, tuple(outline), lake), in_job=True))

    @property
    def lake(self) -> str:
        """Its address."""
        return self.outline.run.lake

    @property
    def patience_seconds(self) -> float:
        """How long servers are waited for."""
        return self.outline.run.patience_seconds

    def config(self, versions: Versions, version: str | None = None) -> PipelineConfig:
        """The config with exact versions: `version` for its dataset, else the latest there is. Raises BadConfig."""
        names = dict.fromkeys(name for setting in self.settings for name in _PLACE.findall(setting))
        given = "" if version is None else version.partition("@")[0]
        if version is not None and given not in names:
            raise BadConfig(f"version: {version}, but no setting has ${{{given}}} to put it in")
        exact = {name: version if name == given else _latest(versions, name) for name in names}
        settings = [_PLACE.sub(lambda match: str(exact[match[1]]), setting) for setting in self.settings]
        return resolve(Request(self.source, tuple(settings), self.lake), in_job=True)


def _latest(versions: Versions, name: str) -> str:
    number = versions.latest(name)
    if number is None:
        raise BadConfig(f"settings: ${{{name}}}: the lake {versions.store.uri} has no version of {name!r}")
    return f"{name}@v{number}"


@dataclass(frozen=True)
class Wanted:
    """What is asked: the resolved config, as a YAML file would hold it, and its key."""

    config: PipelineConfig
    dataset: str
    key: str

    @classmethod
    def of(cls, config: PipelineConfig) -> Wanted:
        """What a resolved config asks for."""
        return cls(config, config.recipe.target, request_key(config))

    def id(self, attempt: int) -> str:
        """The submission id of an attempt, counted from 1."""
        return f"{self.dataset}-{self.key[:12]}-{attempt}"

    def attempt(self, id: str) -> int:
        """The attempt that this id names; 0 if it is none of this request."""
        match = re.fullmatch(re.escape(f"{self.dataset}-{self.key[:12]}-") + r"(\d+)", id)
        return int(match[1]) if match else 0

    @property
    def entrypoint(self) -> str:
        """The command of the job. Raises BadConfig where it is too long for an argument."""
        data = json.dumps(self.config.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
        if len(data.encode()) > LONGEST_ARGUMENT:
            raise BadConfig(
                f"the config has {len(data.encode()):,} bytes, a job's argument at most {LONGEST_ARGUMENT:,}:"
                " give recipe.inputs as patterns (crawl/*.warc.gz) instead of single files"
            )
        Secrets.of_environment().check(data, "the config")
        return f"python -m gristmill.pipelines run --config-json {shlex.quote(data)}"


def request_key(config: PipelineConfig) -> str:
    """Identity of what is asked: the recipe with its addresses and patterns, at one lake. No run setting changes it."""
    data = config.model_dump(mode="json")
    return digest_of(b"request", data["pipeline"], canonical(data["recipe"]), data["run"]["lake"])

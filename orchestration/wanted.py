"""What is asked of Ray: a resolved config without its run settings, at one lake, and the names that follow from it.

Its key stands in the job's metadata and, cut, in the submission id `{dataset}-{key}-{attempt}`. Settings travel as an
argument of the job's command; no secret does, Ray shows it in clear.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.accounts.receipt import canonical
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.settings.config import BadConfig

LONGEST_ARGUMENT = 100_000  # bytes; Linux takes 128 KiB


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
        return f"python -m gristmill.pipelines run --config-json {shlex.quote(data)}"


def request_key(config: PipelineConfig) -> str:
    """Identity of what is asked: the recipe with its addresses and patterns, at one lake. No run setting changes it."""
    data = config.model_dump(mode="json")
    return digest_of(b"request", data["pipeline"], canonical(data["recipe"]), data["run"]["lake"])

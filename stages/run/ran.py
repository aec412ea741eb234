"""What ran: the identity of every stage whose receipts a run used, so that no version claims others.

A run key is computed before anything runs, from a list of stages that its pipeline writes down. A stage that is left
out of it could be changed, its VERSION raised, and the version of before would still be returned. So the runner notes
what it ran, or took from a receipt, and the commit compares.
"""

from __future__ import annotations

from collections.abc import Iterable

from gristmill.lake.accounts.receipt import Receipt, StageId, canonical


class WrongClaim(Exception):
    """A version claims stages other than those that ran. A defect of its pipeline; nothing was committed."""


class Ran:
    """Stages that ran. `nothing_to_do`: some map had no work at all, so that its stages are not seen here."""

    def __init__(self, stages: Iterable[StageId] = (), *, nothing_to_do: bool = False) -> None:
        self._stages: dict[bytes, StageId] = {}
        self.nothing_to_do = nothing_to_do
        self.add_stages(stages)

    def add(self, receipt: Receipt) -> None:
        """The stages of a receipt, new or of an earlier run."""
        self.add_stages(receipt.stages)

    def add_stages(self, stages: Iterable[StageId]) -> None:
        """Notes these as run; a step that is no Work (the commit) has no receipt to take them from."""
        for stage in stages:
            self._stages[_key(stage)] = stage

    def copy(self) -> Ran:
        """As it is now: what runs from here on is noted in one of the two alone."""
        return Ran(self._stages.values(), nothing_to_do=self.nothing_to_do)

    def check(self, target: str, claimed: Iterable[StageId]) -> None:
        """Raises WrongClaim unless just these ran. A stage may be claimed that did not run where some map had nothing
        to do: of no input there is no chunk to read."""
        claims = {_key(stage): stage for stage in claimed}
        left_out = [stage for key, stage in self._stages.items() if key not in claims]
        idle = [stage for key, stage in claims.items() if key not in self._stages]
        if not left_out and (not idle or self.nothing_to_do):
            return
        differences = [f"{_shown(stage)} ran, and is not claimed" for stage in left_out]
        if not self.nothing_to_do:
            differences += [f"{_shown(stage)} is claimed, and did not run" for stage in idle]
        raise WrongClaim(
            f"{target}: its stages are not those that ran: {'; '.join(differences)}. A run key of the wrong stages"
            " returns old versions when a stage changes. Nothing was committed; this is a defect of the pipeline:"
            " its list of stages must name what it runs."
        )


def _key(stage: StageId) -> bytes:
    return canonical(stage.model_dump(mode="json"))


def _shown(stage: StageId) -> str:
    config = f" {canonical(stage.config).decode()}" if stage.config else ""
    return f"{stage.name} v{stage.version}{config}"

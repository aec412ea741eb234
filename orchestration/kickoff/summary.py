"""What is said of a kickoff when it is over: what every node came to, and the page on what it made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from gristmill.lake.versions.manifest import Manifest
from gristmill.orchestration.kickoff.show import draw_ends
from gristmill.orchestration.report.page import write_report
from gristmill.orchestration.show.terminal import plain
from gristmill.pipelines.kickoff.bring import End
from gristmill.pipelines.kickoff.prepare import Prepared
from gristmill.pipelines.kickoff.run import code_of
from gristmill.pipelines.settings.exits import DONE, INCOMPLETE


@dataclass(frozen=True)
class Summary:
    """`report`: the page that `report` of the file asks for; None: it asks for none, none of its nodes is done, or it
    could not be written (`fault`)."""

    kickoff: str
    ends: Sequence[End]
    report: Path | None
    fault: str = ""

    @property
    def code(self) -> int:
        """The exit code of all of it."""
        return code_of(self.ends) or (INCOMPLETE if self.fault else DONE)

    def to_json(self) -> dict[str, Any]:
        """As a script reads it."""
        report = None if self.report is None else str(self.report)
        return {
            "kickoff": self.kickoff,
            "nodes": [_to_json(end) for end in self.ends],
            "report": report,
            "fault": self.fault,
        }

    def draw(self, console: Console) -> None:
        """A table, and where the page is."""
        draw_ends(console, self.ends)
        if self.report is not None:
            console.print(f"report: {self.report}", soft_wrap=True)
        if self.fault:
            console.print(plain(self.fault), soft_wrap=True)


def summary(prepared: Prepared, ends: Sequence[End]) -> Summary:
    """Writes the page, if there is to be one; where that fails, what nodes came to is said all the same."""
    done: Mapping[str, Sequence[Manifest]] = {**prepared.done, **{end.node: end.versions for end in ends}}
    asked = prepared.config.report
    named = () if asked is None else asked.nodes
    versions = [str(manifest) for name in named for manifest in done.get(name, ())]
    path = None
    if asked is not None and versions:
        try:
            title = f"Kickoff {prepared.config.kickoff}"
            path = write_report(prepared.store, versions, Path(asked.file), title).resolve()
        except OSError as error:  # the store, a damaged object, no room or no right where it is to lie
            return Summary(prepared.config.kickoff, ends, None, f"no report: {error}; run the same command again")
    return Summary(prepared.config.kickoff, ends, path)


def _to_json(end: End) -> dict[str, Any]:
    about = {"node": end.node, "state": end.state, "versions": [str(manifest) for manifest in end.versions]}
    digests = [manifest.digest for manifest in end.versions]
    return {**about, "digests": digests, "why": end.why, "code": end.code, "seconds": round(end.seconds, 1)}

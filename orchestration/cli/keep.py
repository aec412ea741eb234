"""Commands that change or check a lake, or take a version out of it: tag, withdraw, checkout, verify, gc.

What cannot be undone is asked for twice: gc only says what would go until --yes, and withdraw wants its reason.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.orchestration.cli.complete import complete_version
from gristmill.orchestration.show.terminal import (
    NOT_FOUND,
    JsonOption,
    LakeOption,
    answer,
    counter,
    note,
    open_lake,
    plain,
    versions_of,
)

if TYPE_CHECKING:
    from rich.console import Console

    from gristmill.lake.upkeep.gc import GcPlan, GcReport
    from gristmill.lake.upkeep.verify_content import Finding

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
VersionArgument = Annotated[
    str,
    typer.Argument(metavar="NAME[@vN|@TAG]", help="A version. Default: the latest.", autocompletion=complete_version),
]
ExactArgument = Annotated[str, typer.Argument(metavar="NAME@vN", help="The version.", autocompletion=complete_version)]


def tag(
    ref: ExactArgument,
    name: Annotated[str, typer.Argument(metavar="TAG", help="Letters, digits, '.', '_', '-'. Tags never move.")],
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a version a name, for good."""
    versions = versions_of(lake)
    manifest = versions.resolve(_exact(ref))
    versions.tag(manifest.dataset, manifest.version, name)
    data = {"dataset": manifest.dataset, "version": manifest.version, "tag": name}
    answer(data, as_json, lambda console: console.print(f"{manifest} is {manifest.dataset}@{name} now"))


def _exact(ref: str) -> str:
    if "@" not in ref or ref.endswith("@latest"):
        raise ValueError(f"{ref!r}: name the exact version, such as {ref.partition('@')[0]}@v3")
    return ref


def withdraw(
    ref: ExactArgument,
    reason: Annotated[str, typer.Option("--reason", help="Shown to whoever asks for it. No personal data.")],
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a version down, for good: no longer given out, and its data goes with the next gc."""
    versions = versions_of(lake)
    manifest = versions.resolve(_exact(ref))
    versions.withdraw(manifest.dataset, manifest.version, reason)
    reason = versions.withdrawn(manifest.dataset)[manifest.version]  # of two withdrawals the first counts
    data = {"dataset": manifest.dataset, "version": manifest.version, "reason": reason}
    text = f"{manifest} is withdrawn: {plain(reason)}\n`grist gc --yes` removes what no other version holds"
    answer(data, as_json, lambda console: console.print(text))


def checkout(
    ref: VersionArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a version's files into a folder. Killed, the same command goes on where it stopped."""
    if ":/" in str(directory):
        raise ValueError(f"checkout writes to a local folder, not to {directory}; copy it there afterwards")
    from rich.filesize import decimal

    from gristmill.lake.query.checkout import checkout as copy
    from gristmill.lake.query.query import resolve_usable
    from gristmill.orchestration.show.tables import counted

    versions = versions_of(lake)
    manifest = resolve_usable(versions, ref)
    done = copy(versions.store, manifest, directory, progress=lambda name: note(f"{name} written"))
    text = f"{manifest}: {counted(len(done.files), 'file')}, {decimal(done.bytes)} in {done.directory}"
    if done.found:
        text += f" ({done.found:,} of them there before, and whole)"
    answer(done, as_json, lambda console: console.print(text))


def verify(
    ref: Annotated[
        str | None,
        typer.Argument(metavar="NAME[@vN]", help="Default: everything.", autocompletion=complete_version),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash every object as well.")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that manifests, objects and ledgers are whole. Exit code 1 if something is not."""
    from gristmill.lake.upkeep.verify import verify as check

    store = open_lake(lake)
    findings = check(store, None if ref is None else [ref], deep=deep, progress=counter())
    answer(findings, as_json, lambda console: _draw_findings(console, findings, store.uri, deep))
    if findings:
        raise typer.Exit(NOT_FOUND)


def _draw_findings(console: Console, findings: list[Finding], uri: str, deep: bool) -> None:
    from rich.text import Text

    if not findings:
        how = "every object was read and hashed" if deep else "objects were not read: --deep does that"
        console.print(f"{uri}: nothing is wrong ({how})")
    for finding in findings:
        console.print(Text.assemble((f"{finding.severity}: {finding.what}", "bold red"), f"  {plain(finding.message)}"))
        if finding.harmed:
            console.print(Text(f"  harms {', '.join(finding.harmed)}", style="yellow"))


def gc(
    grace: Annotated[str, typer.Option(metavar="24h", help="Spare what is younger: 90s, 30m, 24h, 7d.")] = "24h",
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it, only say what would go.")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what no version and no live run needs. Says what would go; deletes only with --yes."""
    from gristmill.lake.upkeep.gc import plan_gc, run_gc

    store = open_lake(lake)
    plan = plan_gc(store, grace_seconds=seconds(grace), to_look=not yes)
    report = run_gc(store, plan, counter()) if yes else None
    data: dict[str, Any] = {"plan": plan.to_json(), "report": None if report is None else report.to_json()}
    answer(data, as_json, lambda console: _draw_gc(console, plan, report))


def seconds(text: str) -> float:
    """`24h` as seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None:
        raise ValueError(f"--grace {text!r}: a number and a unit (s, m, h, d), such as 24h or 30m")
    return float(match[1]) * _UNITS[match[2]]


def _draw_gc(console: Console, plan: GcPlan, report: GcReport | None) -> None:
    from rich.filesize import decimal

    from gristmill.orchestration.show.tables import counted, grid

    going = "would go" if report is None else "planned to go"
    table = grid(going, "count>", "size>", "why~")
    for (kind, why), (n, size) in plan.reasons().items():
        table.add_row(kind, f"{n:,}", decimal(size), why)
    for why, (n, size) in plan.kept.items():
        table.add_row("(object stays)", f"{n:,}", decimal(size), why, style="dim")
    console.print(table)
    if plan.clock == "machine":
        console.print("this lake cannot be written from here: ages are by this machine's clock, not by the store's")
    if report is not None:
        gone = ", ".join(counted(n, kind) for kind, (n, _) in report.deleted.items()) or "nothing"
        console.print(f"deleted {gone}: {decimal(report.bytes)}")
        for why, n in report.spared.items():
            console.print(f"spared {n:,}: {why}")
    elif plan.doomed:
        console.print(f"{decimal(plan.bytes)} would go; nothing was deleted. `grist gc --yes` deletes.")
    else:
        console.print("nothing to collect")

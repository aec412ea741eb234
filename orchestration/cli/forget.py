"""The command `forget`: a takedown. Without --yes it only says what would happen.

    grist forget --urls takedown.txt --reason "request 2026-17"          # what would go, and from where
    grist forget --urls takedown.txt --reason "request 2026-17" --yes    # new versions, old ones withdrawn
    grist gc --grace 0s --yes                                            # erased

What was asked for is personal data: it is hashed where it is read, and only hashes reach the lake.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.orchestration.show.terminal import JsonOption, LakeOption, answer, plain, versions_of

if TYPE_CHECKING:
    from rich.console import Console

    from gristmill.lake.takedown.plan import Affected, Derived, ForgetPlan, ForgetReport
    from gristmill.lake.takedown.suppress import Suppression

FileOption = Path | None
_ERASE = (
    "Still in the lake until then: the withdrawn versions' objects, and texts that extraction stored.\n"
    "Input files outside the lake are not touched, nor are copies that were checked out, nor weights that were trained."
)


def forget(
    reason: Annotated[str, typer.Option("--reason", help="Shown to whoever asks why. No personal data.")],
    ids: Annotated[FileOption, typer.Option("--ids", metavar="FILE", help="Record ids, one a line.")] = None,
    urls: Annotated[
        FileOption, typer.Option("--urls", metavar="FILE", help="Absolute URLs, one a line, in any spelling.")
    ] = None,
    domains: Annotated[
        FileOption, typer.Option("--domains", metavar="FILE", help="Domains, one a line; subdomains are covered.")
    ] = None,
    media: Annotated[
        FileOption, typer.Option("--media", metavar="FILE", help="sha256 of images, clips or videos, one a line.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it, only say what would happen.")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take records out of every dataset and keep them out of later runs. Acts only with --yes.

    Each dataset gets a version without them; versions that hold them are withdrawn, and the next gc erases them.
    """
    from gristmill.lake.takedown.forget import forget as do
    from gristmill.lake.takedown.forget import plan_forget
    from gristmill.pipelines.frame.assembly import provenance

    request = read_request({"ids": ids, "urls": urls, "domains": domains, "media": media}, reason)
    versions, started = versions_of(lake), time.time()
    plan = plan_forget(versions, request)
    report = do(versions, plan, reason, lambda: provenance(started)) if yes else None
    data: dict[str, Any] = {"plan": plan.to_json(), "report": None if report is None else report.to_json()}
    answer(data, as_json, lambda console: _draw(console, plan, report))


def read_request(files: dict[str, Path | None], reason: str) -> Suppression:
    """The entries of the files, hashed. Blank lines and lines that begin with # are skipped.

    Raises ValueError for an entry that is none, with its place, for a request without entries, and for a reason that
    would put one of them into the lake in clear.
    """
    from gristmill.lake.takedown.suppress import Suppression

    if not reason.strip():
        raise ValueError("--reason is empty: say why, such as 'request 2026-17'; no personal data")
    entries: list[Suppression] = []
    for name, path in files.items():
        for number, line in enumerate([] if path is None else _lines(path, name), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                entries.append(Suppression.of(**{name: [text]}))
            except ValueError as error:
                raise ValueError(f"--{name} {path}, line {number}: {error}. Nothing was changed") from error
            if text.casefold() in reason.casefold():
                raise ValueError(
                    f"--reason names what is to be forgotten (--{name} {path}, line {number}), and it is kept for good:"
                    " give the number of the request instead"
                )
    request = Suppression().union(entries)
    if not request:
        raise ValueError(
            "forget: nothing was named; give --ids, --urls, --domains or --media FILE with at least one entry"
        )
    return request


def _lines(path: Path, name: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--{name} {path} is not UTF-8 text ({error}): one entry a line") from error


def _draw(console: Console, plan: ForgetPlan, report: ForgetReport | None) -> None:
    """Prints what would happen, or with a report what did."""
    from gristmill.orchestration.show.tables import counted

    if not plan.affected:
        console.print("No version that is given out holds any of these records.")
        if plan.request.by_url:
            console.print(
                "A record is searched by the URL that it is filed under: its url, else its id where that is a URL."
                " An id beside a url was not searched"
            )
    new = {} if report is None else {old.partition("@")[0]: to for old, to in report.made}
    for affected in plan.affected:
        for line in _consequences(affected, new.get(affected.dataset), done=report is not None):
            console.print(line)
    for derived in plan.derived:
        console.print(f"made from them: {derived.ref} ({plain(derived.role)}), {_outcome(derived, report is not None)}")
    for ref in plan.unsearched:
        console.print(f"not searched: {ref} has shards without record ids; whether it holds one is not known")
    for ref in plan.unknown:
        console.print(f"not known: {ref} was trained on versions that are erased; what they held cannot be told")
    if plan.request.domains and plan.without_url:
        console.print(
            f"{counted(plan.without_url, 'record')} of these versions have no URL, so that whether they are of these"
            " domains is not known: name them by --ids"
        )
    if plan.request.domains and plan.texts_gone:
        console.print(
            f"{counted(plan.texts_gone, 'extracted text')} gone already: if a page of these domains was dropped as a"
            " duplicate there, its signature could not be told and stays"
        )
    if report is None:
        console.print("Nothing was changed. --yes does it, and keeps these records out of later runs.")
        return
    for ref, why in report.without_successor.items():
        console.print(f"{ref} has no clean successor: {plain(why)}. Make it anew")
    console.print(f"On the suppression list as {plan.request.digest[:12]}: later runs leave these records out.")
    console.print(f"`grist gc --grace 0s --yes` erases, when no run is alive.\n{_ERASE}")


def _outcome(derived: Derived, done: bool) -> str:
    """What becomes of a version that was made from what goes."""
    if derived.withdraw:
        return "withdrawn as well" if done else "would be withdrawn as well"
    if derived.form == "model":
        return (
            "stays: weights cannot be made to forget a record. Train it anew on the clean version, and"
            f" `grist withdraw {derived.ref}`"
        )
    return "stays: make it anew from the clean version, or withdraw it"


def _consequences(affected: Affected, new: str | None, *, done: bool) -> list[str]:
    """What happens to one dataset, as lines to print. new: the clean version, if there is one already."""
    from gristmill.orchestration.show.records import version_ranges
    from gristmill.orchestration.show.tables import counted

    would = "" if done else "would be "
    rows = "".join(f", {counted(n, 'row')} of {kind}" for kind, n in affected.rows.items())
    lines = [f"{affected.dataset}: {counted(affected.records, 'text')}{rows}"]
    if new is not None:
        lines.append(f"  {new} is without them")
    elif affected.base is not None and not done:
        lines.append(f"  a version without them would follow {affected.dataset}@v{affected.base}")
    elif affected.why_not is not None:
        lines.append(f"  no version without them can be made: {affected.why_not}; make it anew")
    lines.append(f"  {would}withdrawn: {version_ranges(affected.withdraw, range(1, max(affected.withdraw) + 1))}")
    if affected.tags:
        named = "withdrawn versions" if done else "them"
        lines.append(f"  tags that name {named}, and are not moved: {', '.join(affected.tags)}")
    if affected.followers:
        lines.append(f"  {counted(affected.followers, 'duplicate')} dropped in their favour: stay dropped")
    return lines

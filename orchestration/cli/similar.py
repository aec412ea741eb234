"""The command `similar`: which documents of a version are near duplicates of a text."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from gristmill.orchestration.cli.lake import RefArgument
from gristmill.orchestration.show.terminal import NOT_FOUND, JsonOption, LakeOption, answer, note, versions_of


def similar(
    ref: RefArgument,
    file: Annotated[typer.FileText, typer.Argument(metavar="FILE", help="A text file; - reads stdin.")],
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find near duplicates of a text in a version, dropped ones too. Exit code 1 if there is none."""
    from gristmill.lake.accounts import ledger
    from gristmill.lake.query.query import resolve_usable
    from gristmill.orchestration.show.records import NearDuplicate, draw_similar
    from gristmill.stages.near.similar import similar as ask

    versions = versions_of(lake)
    manifest = resolve_usable(versions, ref)
    answers = []
    for match in ask(versions.store, manifest, file.read()):
        rows: list[dict[str, Any]] = ledger.find(versions.store, manifest.ledgers, match.id).to_pylist()
        row = min(rows, key=lambda row: (row["fate"] != "kept", row["reason"] == "exact.same_record"), default={})
        about = (row.get("fate"), row.get("reason"), row.get("survivor"))
        answers.append(NearDuplicate(match.id, match.similarity, match.n_words, *about))
    if answers or as_json:
        data = {"version": str(manifest), "similar": answers}
        answer(data, as_json, lambda console: draw_similar(console, manifest, answers))
    if not answers:
        name = "the text" if file is sys.stdin else file.name
        note(f"nothing in {manifest} shares a band with {name}: below a similarity of about .5 that is usual")
        raise typer.Exit(NOT_FOUND)

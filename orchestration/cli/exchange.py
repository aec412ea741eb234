"""`grist export dataset`: a version for people who have no lake, and, if asked, on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.orchestration.cli.complete import complete_version
from gristmill.orchestration.show.terminal import JsonOption, LakeOption, answer, note, versions_of

if TYPE_CHECKING:
    from gristmill.stages.exchange.files import Target


def export_dataset(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@vN|@TAG]", help="A version. Default: the latest.", autocompletion=complete_version
        ),
    ],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    target: Annotated[
        str, typer.Option("--as", metavar="parquet|webdataset|hf", help="What the files are: see docs/exchange.md.")
    ] = "parquet",
    license: Annotated[
        str | None, typer.Option("--license", metavar="SPDX", help="For card and metadata: cc-by-4.0, odc-by, ...")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Where it will be found, for its metadata. With --push: on the hub.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="OWNER/NAME", help="Upload it to this dataset on the hub (extra `hub`)."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push: a repository that it makes is public.")
    ] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a version for other tools: data, Croissant metadata, a card. Killed, the same command goes on."""
    # long: a parameter for each option
    if ":/" in str(directory):
        raise ValueError(f"export writes to a local folder, not to {directory}; copy it there afterwards")
    if public and push is None:
        raise ValueError("--public is about --push OWNER/NAME, which is not given")
    from rich.filesize import decimal

    from gristmill.orchestration.hub import check_repo, url_of
    from gristmill.orchestration.hub import push as upload
    from gristmill.orchestration.show.tables import counted
    from gristmill.stages.exchange.about import Publication
    from gristmill.stages.exchange.export import export

    if push is not None:
        check_repo(push)
        url = url or url_of(push)
    done = export(
        versions_of(lake),
        ref,
        directory,
        _target(target),
        Publication(license, url),
        progress=lambda name: note(f"{name} written"),
    )
    text = f"{done.version}: {counted(done.records, 'record')} in {counted(len(done.files), 'file')}, "
    text += f"{decimal(done.bytes)} in {done.directory}"
    if done.present:
        text += f" ({done.present:,} of them there before, and whole)"
    answer(done, as_json, lambda console: console.print(text))
    if push is not None:
        note(f"pushed: {upload(directory, push, f'{done.version} by gristmill', public=public)}")


def _target(given: str) -> Target:
    """Raises ValueError for what is none."""
    from gristmill.stages.exchange.files import TARGETS

    for target in TARGETS:
        if given == target:
            return target
    raise ValueError(f"--as {given}: allowed are {', '.join(TARGETS)}")

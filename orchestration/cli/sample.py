"""`grist sample`: a few records of a version as they are, of whatever form it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.orchestration.cli.lake import RefArgument
from gristmill.orchestration.show.terminal import JsonOption, LakeOption, answer
from gristmill.orchestration.show.terminal import versions_of as versions_of

if TYPE_CHECKING:  # they take time to import
    from gristmill.lake.versions.manifest import Manifest
    from gristmill.lake.versions.versions import Versions


def sample(
    ref: RefArgument,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed, other documents.")] = 0,
    fate: Annotated[str | None, typer.Option(help="kept, dropped or quarantined. Default: kept.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only records with this reason.")] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME@vN", help="Of a mixture: only records of this source.")
    ] = None,
    verdict: Annotated[
        str | None, typer.Option(help="Of rollouts: only samples that are accepted, rejected or undecided.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print whole documents.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A PNG file to draw their images and clips to.")
    ] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a few documents, kept or dropped; the same ones for the same seed.

    Of a mixture: a few records of each source as windows hold them, with what is learned between « and ».
    Of rollouts: problems with all their samples; with --verdict a few samples, of which --reason is then asked.
    With --sheet FILE.png also their images, with what is said of them, of a mixture the crops that an encoder sees;
    and their clips, as spectrograms.
    """
    from gristmill.lake.query.query import resolve_usable

    if sheet is not None:
        from gristmill.orchestration.show.sheet import check_name

        check_name(sheet)
    versions = versions_of(lake)
    manifest = resolve_usable(versions, ref)
    if verdict is not None:
        if fate is not None or source is not None or sheet is not None:
            raise ValueError("--verdict asks for samples of problems, which have no --fate, --source or --sheet")
        _sample_chains(versions, manifest, n, seed, verdict, reason, full=full, as_json=as_json)
        return
    if manifest.layout.shown == "stretches" and fate in (None, "kept") and reason is None:
        _sample_windows(versions, manifest, n, seed, source, full=full, sheet=sheet, as_json=as_json)
        return
    if source is not None:
        raise ValueError(
            f"--source {source}: {manifest} is no mixture, or what was asked for is in none of its windows"
        )
    _sample_records(versions, manifest, n, seed, fate, reason, full=full, sheet=sheet, as_json=as_json)


def _sample_records(
    versions: Versions,
    manifest: Manifest,
    n: int,
    seed: int,
    fate: str | None,
    reason: str | None,
    *,
    full: bool,
    sheet: Path | None,
    as_json: bool,
) -> None:
    from gristmill.lake.query.sampling import sample as ask
    from gristmill.orchestration.show.records import draw_samples

    drawn = ask(versions, manifest, n, seed=seed, fate=fate, reason=reason, data=sheet is not None)
    shown = drawn if sheet is None else drawn.without_data()
    answer(shown, as_json, lambda console: draw_samples(console, shown, full, manifest.layout.children))
    if sheet is not None:
        from gristmill.orchestration.show.sheet import record_cells, write_sheet

        write_sheet(sheet, record_cells(drawn))


def _sample_chains(
    versions: Versions,
    manifest: Manifest,
    n: int,
    seed: int,
    verdict: str,
    reason: str | None,
    *,
    full: bool,
    as_json: bool,
) -> None:
    from gristmill.lake.query.chains import sample_chains
    from gristmill.orchestration.show.children import draw_chains

    drawn = sample_chains(versions.store, manifest, verdict, n, seed=seed, reason=reason)
    answer(drawn, as_json, lambda console: draw_chains(console, drawn, full))


def _sample_windows(
    versions: Versions,
    manifest: Manifest,
    n: int,
    seed: int,
    source: str | None,
    *,
    full: bool,
    sheet: Path | None,
    as_json: bool,
) -> None:
    from gristmill.orchestration.show.sheet import stretch_cells, write_sheet
    from gristmill.orchestration.show.windows import draw_stretches
    from gristmill.pipelines.tokenizer import tokenizer_of
    from gristmill.stages.mix.windows import sample_stretches

    tokenizer = tokenizer_of(versions, manifest)
    stretches = sample_stretches(versions.store, manifest, tokenizer, n, seed=seed, source=source)
    answer(stretches, as_json, lambda console: draw_stretches(console, stretches, full))
    if sheet is not None:
        write_sheet(sheet, stretch_cells(versions.store, manifest, stretches))

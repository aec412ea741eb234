"""Commands that look at a lake and change nothing: ls, log, show, stats, lineage, why, diff, replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.orchestration.cli.complete import complete_dataset, complete_version
from gristmill.orchestration.show.terminal import NOT_FOUND, JsonOption, LakeOption, answer, note, say, to_json
from gristmill.orchestration.show.terminal import versions_of as versions_of

if TYPE_CHECKING:  # they take time to import
    pass

RefArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@vN|@TAG]",
        help="A dataset, or one version of it. Default: the latest.",
        autocompletion=complete_version,
    ),
]


def ls(
    name: Annotated[
        str | None,
        typer.Argument(help="Only this dataset, with all its versions.", autocompletion=complete_dataset),
    ] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List datasets, or the versions of one."""
    from gristmill.lake.query.query import list_datasets, list_versions
    from gristmill.orchestration.show.tables import draw_datasets, draw_versions

    versions = versions_of(lake)
    if name is None:
        datasets = list_datasets(versions)
        answer(datasets, as_json, lambda console: draw_datasets(console, datasets, versions.store.uri))
    else:
        rows = list_versions(versions, name)
        answer(rows, as_json, lambda console: draw_versions(console, rows))


def log(
    name: Annotated[str, typer.Argument(help="A dataset.", autocompletion=complete_dataset)],
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The versions of a dataset, newest first, with what came in and what was kept."""
    from gristmill.lake.query.query import list_versions
    from gristmill.orchestration.show.tables import draw_log

    rows = list_versions(versions_of(lake), name)
    answer(rows, as_json, lambda console: draw_log(console, rows))


def show(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@vN|@TAG]|RUN",
            help="A dataset, or one version of it; or a training that runs, by its key.",
            autocompletion=complete_version,
        ),
    ],
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Everything about a version: funnel, inputs, recipe, shards, statistics, code; of a trained model its curves."""
    from rich.console import Console

    from gristmill.lake.query.query import describe
    from gristmill.lake.versions.versions import NoSuchVersion
    from gristmill.orchestration.show.version import draw_description

    versions = versions_of(lake)
    try:
        about = describe(versions, ref)
    except NoSuchVersion:
        from gristmill.orchestration.show.runs import training_of_run

        if (run := training_of_run(versions.store, ref)) is None:
            raise
        answer(run, as_json, run.draw)
        return
    if about.manifest.form != "model":
        answer(about, as_json, lambda console: draw_description(console, about))
        return
    from gristmill.orchestration.show.runs import training_of_version

    training = training_of_version(versions.store, about.manifest)

    def draw(console: Console) -> None:
        draw_description(console, about)
        if training is not None:
            training.draw(console)

    answer(to_json(about) | ({} if training is None else {"training": training.to_json()}), as_json, draw)


def stats(ref: RefArgument, lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """What the kept documents are like: languages, lengths."""
    from gristmill.orchestration.show.version import draw_statistics

    manifest = versions_of(lake).resolve(ref)
    data = {"version": str(manifest), "digest": manifest.digest, "statistics": manifest.statistics}
    answer(data, as_json, lambda console: draw_statistics(console, manifest))


def lineage(
    ref: RefArgument,
    record: Annotated[
        str | None,
        typer.Option("--record", metavar="URL|ID", help="Only what this record went through, down to its place."),
    ] = None,
    as_dot: Annotated[
        bool, typer.Option("--dot", help="A graph in Graphviz's language: grist ... | dot -Tsvg.")
    ] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where a version comes from: the versions before it, down to input files; or a record, down to its place in one.

    --json has each version once in `nodes`, and in `edges` what was made from what.
    """
    from gristmill.lake.query.lineage import dot, graph, record_path
    from gristmill.lake.query.query import lineage as ask
    from gristmill.orchestration.show.version import draw_lineage

    if as_dot and as_json:
        raise ValueError("--dot and --json are two forms of one answer: give one of them")
    versions = versions_of(lake)
    if record is None:
        tree, places = ask(versions, ref), None
        data = graph(tree)
    else:
        path = record_path(versions, ref, record)
        tree, places, data = path.tree, path.places, path.to_json()
    if as_dot:
        say(dot(tree, places))
    else:
        answer(data, as_json, lambda console: draw_lineage(console, tree, places))


def why(
    query: Annotated[
        str,
        typer.Argument(
            metavar="URL|ID|FILE",
            help="A URL, a source key, an id (of a sample, too) or 8 characters of one; an input file, for what of it"
            " could not be read.",
        ),
    ],
    dataset: Annotated[str | None, typer.Option("--dataset", metavar="NAME", help="Search only here.")] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What became of a record, in every dataset and version. Exit code 1 if there is none."""
    from gristmill.lake.query.why import why as ask
    from gristmill.orchestration.show.records import draw_why, not_found

    history = ask(versions_of(lake), query, dataset)
    known = history.stories or history.children or history.files
    if known or as_json:
        answer(history, as_json, lambda console: draw_why(console, history))
    if not known:
        note(not_found(history))
        raise typer.Exit(NOT_FOUND)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="NAME@vN, NAME@TAG or NAME.", autocompletion=complete_version)],
    b: Annotated[
        str, typer.Argument(metavar="B", help="The version to compare with it.", autocompletion=complete_version)
    ],
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What differs between two versions: recipe, inputs, funnel, and the fates of single records.

    Of two evaluations: which items became right and which wrong, and whether that is more than chance.
    """
    from gristmill.lake.query.diff import diff as ask
    from gristmill.lake.versions.statistics import EvaluationStatistics
    from gristmill.orchestration.show.compare import draw_diff

    versions = versions_of(lake)
    before, after = versions.resolve(a), versions.resolve(b)
    if all(version.layout.statistics is EvaluationStatistics for version in (before, after)):
        from gristmill.orchestration.show.evaluation import draw_comparison
        from gristmill.stages.evaluate.compare import compare

        comparison = compare(versions.store, before, after)
        answer(comparison, as_json, lambda console: draw_comparison(console, comparison))
        return
    differences = ask(versions.store, before, after)
    answer(differences, as_json, lambda console: draw_diff(console, differences))


def replay(
    ref: RefArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="A filter's setting to ask with. Repeatable."),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=0, help="Examples of each change.")] = 3,
    full: Annotated[bool, typer.Option("--full", help="Print whole texts.")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What other thresholds of its filters would keep of a version, from stored measures: nothing is run.

    --set as `grist run` takes it: recipe.gopher_quality.min_words=80, or recipe.gopher_quality=null for none of a
    filter. A setting that decides what is measured is refused, and says why.
    """
    from gristmill.lake.query.query import resolve_usable
    from gristmill.orchestration.show.compare import draw_replay
    from gristmill.pipelines.replay.replay import replay as ask

    versions = versions_of(lake)
    replayed = ask(versions, resolve_usable(versions, ref), settings or (), n)
    answer(replayed, as_json, lambda console: draw_replay(console, replayed, full))

"""The command `grist`. `main` is the entry point; the commands stand here and in cli_lake, cli_keep and cli_forget.

    grist sample-data demo && grist run conf/web.yaml --lake lake-data --set recipe.inputs='[demo/crawl/*]'
    grist ls; grist show web; grist why https://example.org/page; grist diff web@v1 web@v2

Notable choice: `run` is the same function that a Ray job runs, so its exit codes and last line are the same.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import CommandInfo

from gristmill import place
from gristmill.orchestration.cli import audit as cli_audit
from gristmill.orchestration.cli import exchange as cli_exchange
from gristmill.orchestration.cli import forget as cli_forget
from gristmill.orchestration.cli import keep as cli_keep
from gristmill.orchestration.cli import kickoff as cli_kickoff
from gristmill.orchestration.cli import lake as cli_lake
from gristmill.orchestration.cli import report as cli_report
from gristmill.orchestration.cli import runs as cli_runs
from gristmill.orchestration.cli import sample as cli_sample
from gristmill.orchestration.cli import similar as cli_similar
from gristmill.orchestration.cli import stack as cli_stack
from gristmill.orchestration.cli.complete import complete_config, mend_scripts
from gristmill.orchestration.cli.examples import epilog
from gristmill.orchestration.cli.models import ask as cli_ask
from gristmill.orchestration.cli.models import classifier as cli_classifier
from gristmill.orchestration.cli.models import evaluate as cli_evaluate
from gristmill.orchestration.cli.models import hf as cli_hf
from gristmill.orchestration.cli.models import serve as cli_serve
from gristmill.orchestration.cli.models import tokenizer as cli_tokenizer
from gristmill.orchestration.cli.models import train as cli_train
from gristmill.orchestration.ending import without_destructors
from gristmill.orchestration.show.terminal import Grist, JsonOption, LakeOption, answer
from gristmill.pipelines.settings.exits import BROKEN_PIPE, help_text
from gristmill.pipelines.settings.logs import NORMAL, QUIET, VERBOSE, log, set_up_logging

app = typer.Typer(
    cls=Grist,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a defect keeps Python's own traceback, which people can report
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Versioned, fully accounted datasets: run pipelines, look at what they made, ask why.",
    epilog=help_text(),
)


def _version(asked: bool) -> None:
    if asked:
        print(f"gristmill {installed_version()}")
        raise typer.Exit


def installed_version() -> str:
    """The version of the installed distribution; of a bare checkout, the one in its pyproject.toml."""
    try:
        return importlib.metadata.version("gristmill")
    except importlib.metadata.PackageNotFoundError:
        import tomllib

        data = tomllib.loads((place.ROOT / "pyproject.toml").read_text())
        return f"{data['project']['version']} (not installed)"


@app.callback()
def grist(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing on stderr but errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say more on stderr, and where an error was raised.")
    ] = False,
) -> None:
    """Versioned, fully accounted datasets: run pipelines, look at what they made, ask why."""
    if quiet and verbose:
        raise ValueError("--quiet and --verbose: give one of them")
    log.setLevel(QUIET if quiet else VERBOSE if verbose else NORMAL)
    if verbose:
        set_up_logging()


@app.command(epilog=help_text())
def run(
    config: Annotated[
        Path,
        typer.Argument(
            help="A YAML file, or the name of one that comes along, such as web.", autocompletion=complete_config
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Laid over the file. Repeatable.")
    ] = None,
    lake: LakeOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would run, and run nothing.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many records; commits to DATASET.limit.")
    ] = None,
) -> None:
    """Run a pipeline. The last line of stdout is its result as JSON."""
    from gristmill.orchestration.run import run as run_pipeline
    from gristmill.pipelines.command import Request

    set_up_logging()
    raise typer.Exit(run_pipeline(Request(config, tuple(settings or ()), lake, plan, limit)))


@app.command("sample-data")
def sample_data(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it.")],
    pages: Annotated[int, typer.Option(help="Roughly how many pages.")] = 3000,
    seed: Annotated[int, typer.Option(help="Decides every page and row.")] = 0,
    stories: Annotated[int, typer.Option(min=1, help="Short word problems for a small model to train on.")] = 8000,
    copying: Annotated[int, typer.Option(min=1, help="Rows to copy, for the same.")] = 10000,
    scenes: Annotated[int, typer.Option(min=2, help="Pictures with captions, and as many with questions.")] = 12000,
    speech: Annotated[
        int, typer.Option(min=0, help="Clips of spoken digits, which the extra `speech` of the package says.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a small synthetic crawl, instruction data, pictures and speech to try everything on, with the truth about
    them."""
    from gristmill.synth.sample import check_sample, write_sample
    from gristmill.synth.scenes.sample import check_scenes, write_scenes
    from gristmill.synth.speech.sample import check_speech, write_speech

    # Before any of them begins: what one of them refuses would find files of the others written.
    check_scenes(directory, scenes=scenes)
    if speech:
        check_speech(directory, rows=speech)
    of_texts = {"pages": pages, "seed": seed, "stories": stories, "copying": copying}
    check_sample(directory, **of_texts)
    texts, *media = _side_by_side(
        partial(write_sample, directory, **of_texts),
        partial(write_scenes, directory, seed=seed, scenes=scenes),
        *([partial(write_speech, directory, seed=seed, rows=speech)] if speech else []),
    )
    summary = replace(
        texts,
        files=tuple(sorted((*texts.files, *(name for written in media for name in written.files)))),
        bytes=texts.bytes + sum(written.bytes for written in media),
        records=texts.records + sum(sum(written.kinds.values()) for written in media),
        kinds=texts.kinds | {kind: count for written in media for kind, count in written.kinds.items()},
    )
    answer(
        summary,
        as_json,
        lambda console: console.print(
            f"{summary.records:,} records in {len(summary.files)} files below {summary.directory}\n"
            f"try: grist run conf/web.yaml --lake lake-data --set recipe.inputs='[{summary.directory}/crawl/*]'"
        ),
    )


def _side_by_side(*calls: Callable[[], Any]) -> list[Any]:
    """What each call returns, in order; each is made in a process of its own. Raises what the first that fails does."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    workers = min(len(calls), len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


_LOOK = (cli_lake.ls, cli_lake.log, cli_lake.show, cli_lake.stats, cli_lake.lineage)
_TRAINED = (cli_runs.runs, cli_runs.lr_fit)
_ASK = (cli_lake.why, cli_lake.diff, cli_lake.replay, cli_sample.sample, cli_similar.similar)
_JUDGE = (cli_audit.audit, cli_report.report)
_KEEP = (cli_keep.tag, cli_keep.withdraw, cli_forget.forget, cli_keep.checkout, cli_keep.verify, cli_keep.gc)
_STACK = (cli_stack.up, cli_stack.down, cli_stack.status, cli_stack.env, cli_stack.doctor)
_COMMANDS: tuple[Callable[..., None], ...] = (
    *(*_LOOK, *_TRAINED, *_ASK, *_JUDGE, *_KEEP, *_STACK),
    *(cli_serve.serve, cli_ask.ask),
)
app.command(epilog=help_text())(cli_train.train)
app.command(epilog=help_text())(cli_kickoff.kickoff)
for _command in _COMMANDS:
    app.command()(_command)
app.command("eval")(cli_evaluate.evaluate)
app.add_typer(cli_tokenizer.app, name="tokenizer")
app.add_typer(cli_classifier.app, name="classifier")
app.add_typer(cli_hf.import_app, name="import")
app.add_typer(cli_hf.export_app, name="export")
cli_hf.export_app.command("dataset")(cli_exchange.export_dataset)


def name_of(command: CommandInfo) -> str:
    """As it is typed."""
    return command.name or getattr(command.callback, "__name__", "").replace("_", "-")


def _teach(group: typer.Typer, before: str = "") -> None:
    """Each command's help ends with an example, whoever registered it."""
    for command in group.registered_commands:
        command.epilog = epilog(f"{before}{name_of(command)}", command.epilog)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _teach(inner.typer_instance, f"{before}{inner.name} ")


_teach(app)
mend_scripts()


def _without_others(group: typer.Typer, words: Sequence[str]) -> None:
    """Leaves the one command that these words ask for: what typer makes of the parameters of all forty takes longer
    than most answers. Where they ask for none, as for the list of all, nothing is left out."""
    asked = next((word for word in words if not word.startswith("-")), "")
    commands = [command for command in group.registered_commands if name_of(command) == asked]
    if commands and "_GRIST_COMPLETE" not in os.environ:
        group.registered_commands, group.registered_groups = commands, []


def main() -> None:
    """The command `grist`; ends the process with its exit code (pipelines/settings/exits.py)."""
    code: Any = 0
    _without_others(app, sys.argv[1:])
    ended = without_destructors()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a bar, or a page's title, where the terminal's charset has none
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="grist")
    except SystemExit as end:
        code = end.code
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the last words, too, were for somebody who left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's own flush is quiet
        code = code or BROKEN_PIPE
    if code is None or isinstance(code, int):
        ended.append(code or 0)
    sys.exit(code)


if __name__ == "__main__":
    main()

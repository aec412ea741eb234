"""`python -m pipelines run conf/web.yaml`: a pipeline as a Ray job runs it. `grist run` is the same function.

The last line of stdout is one JSON object; everything else goes to stderr. Exit codes: pipelines/settings/exits.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.lake.store.base import MARKER, NotFound, Store, UnknownFormat, UnsafeStore
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.outage import Patience, brief, is_outage
from gristmill.lake.takedown.suppress import ListNotWhole
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.recipes import recipe_changes
from gristmill.lake.versions.versions import CommitConflict, MissingObjects, Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.growth import nothing_new
from gristmill.pipelines.frame.recipe import InputRecipe, PipelineConfig
from gristmill.pipelines.frame.result import Result, last_line
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import (
    BadConfig,
    check_inputs_absolute,
    inside_job,
    lake_uri,
    load,
    override,
    validate,
)
from gristmill.pipelines.settings.exits import BAD_CONFIG, CONFLICT, DONE, GATE, INCOMPLETE, help_text
from gristmill.pipelines.settings.logs import set_up_logging as set_up_logging  # every command takes it from here
from gristmill.pipelines.settings.plain import plain
from gristmill.pipelines.settings.shipped import find_config
from gristmill.stages.run.cluster import WrongCluster, interrupts, stop_on_sigterm
from gristmill.stages.run.private import NotPrivate
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete, PlanOnly

log = logging.getLogger("gristmill")


@dataclass(frozen=True)
class Request:
    """One run as asked for on a command line or by a flow. `config` is a YAML file, or what such a file holds."""

    config: Path | Mapping[str, Any]
    settings: tuple[str, ...] = ()
    lake: str | None = None
    plan: bool = False
    limit: int | None = None


def resolve(request: Request, in_job: bool | None = None) -> PipelineConfig:
    """The validated config: file, then --set, then --limit and --lake. Raises BadConfig.

    `in_job`: relative paths are refused, as in a job; by default, where this process is one.
    """
    in_job = inside_job() if in_job is None else in_job
    given = load(find_config(request.config)) if isinstance(request.config, Path) else request.config
    data = override(given, request.settings)
    if request.limit is not None:
        data = override(data, [f"recipe.limit={request.limit}"])
    kind = data.get("pipeline")
    if not isinstance(kind, str) or kind not in PIPELINES:
        where = f"{request.config}: " if isinstance(request.config, Path) else ""
        hint = "; it has nodes, and is for `grist kickoff`" if "nodes" in data else ""
        raise BadConfig(f"{where}pipeline: {kind!r}; allowed: {', '.join(PIPELINES)}{hint}")
    config = validate(PIPELINES[kind], data)
    uri = lake_uri(request.lake, config.run.lake, in_job=in_job)
    if in_job:
        for key, addresses in config.recipe.addresses().items():
            check_inputs_absolute(addresses, key)
    return config.model_copy(update={"run": config.run.model_copy(update={"lake": uri})})


@dataclass(frozen=True)
class Ended:
    """What a run came to: its exit code, and what stood against it or the versions that it is about; a plan has
    neither. `versions`: such as web@v3, of a chain all in order. `new`: whether it made the last one. `result`: only of
    a run in this process."""

    code: int
    error: str = ""
    versions: tuple[str, ...] = ()
    new: bool = False
    result: Result | None = None


def run(request: Request, then: Callable[[PipelineConfig, Result], None] | None = None) -> int:
    """Runs the pipeline, prints its result as the last line of stdout, and returns the exit code. `then`: is called
    with it afterwards, where there is one."""
    try:
        stop_on_sigterm()
        config = resolve(request)
        ended = carry_out(config, plan=request.plan)
        if ended.result is not None:
            print(last_line(ended.result), flush=True)
            if then is not None:
                then(config, ended.result)
    except BadConfig as error:
        ended = Ended(BAD_CONFIG, str(error))
    except KeyboardInterrupt:
        ended = Ended(INCOMPLETE, "interrupted; what is done is kept: run the same command again")
    if ended.error:
        print(f"error: {plain(ended.error)}", file=sys.stderr, flush=True)
    return ended.code


def carry_out(config: PipelineConfig, *, plan: bool = False) -> Ended:
    """Runs the pipeline of a config that is resolved, as far as it goes. Raises KeyboardInterrupt, and defects."""
    before = interrupts()
    try:
        ended = _carry_out(config, plan)
    except Exception as error:
        if interrupts() == before:
            raise
        raise KeyboardInterrupt from error  # that is what it was
    if ended.error and interrupts() > before:
        raise KeyboardInterrupt
    return ended


def _carry_out(config: PipelineConfig, plan: bool) -> Ended:
    """As `carry_out`; what an interrupt became in a library is raised, or said, as that."""
    how = config.run
    try:
        patience = Patience(f"store {how.lake}, inputs or cluster", how.patience_seconds)
        store = patience.wait(lambda: open_lake(how.lake))
        runner = Runner(store, workers=how.workers, shared_filesystem=how.shared_filesystem, plan=plan)
        # Tried again after an outage: what was done before it has receipts.
        result = patience.wait(lambda: run_pipeline(config, store, runner))
    except PlanOnly as planned:
        _print_plan(runner, planned)
        return Ended(DONE)
    except (BadConfig, NotPrivate, WrongCluster, UnsafeStore, UnknownFormat) as error:
        return Ended(BAD_CONFIG, str(error))
    except (GateFailed, ListNotWhole) as error:
        return Ended(GATE, str(error))
    except CommitConflict as error:
        return Ended(CONFLICT, str(error))
    except Incomplete as error:
        return Ended(INCOMPLETE, str(error))
    except MissingObjects as error:
        return Ended(INCOMPLETE, f"{error}: run the same command again to make them")
    except (
        OSError,
        NotFound,
    ) as error:  # of this process, not a worker's: a full disk, a store, input or object that went away
        log.debug("the run stopped", exc_info=True)
        return Ended(INCOMPLETE, f"{error}; what is done is kept: run the same command again")
    except Exception as error:
        if not type(error).__module__.startswith("botocore"):  # S3 refused: credentials that expired, no permission
            raise
        return Ended(INCOMPLETE, f"{brief(error)}; what is done is kept: run the same command again")
    if not result.new:
        log.info("%s", _nothing_to_do(config, result.manifest, Versions(store)))
    return Ended(DONE, versions=result.versions, new=result.new, result=result)


def _nothing_to_do(config: PipelineConfig, there: Manifest, versions: Versions) -> str:
    """Why the version was there already."""
    recipe = config.recipe
    if isinstance(recipe, InputRecipe) and recipe.extends is not None:
        return nothing_new(there, recipe_changes(there.recipe, recipe.with_digests(versions).identity()))
    return f"{there} was made by this very run before; nothing to do"


def open_lake(uri: str, *, to_read: bool = False) -> Store:
    """The lake; `to_read`: nothing is written, so that who may not write can look. Raises BadConfig, UnsafeStore,
    UnknownFormat, and the error of an outage (lake.store.outage)."""
    try:
        return open_store(uri, probe=not to_read)
    except (UnsafeStore, UnknownFormat):
        raise
    except Exception as error:
        refused = type(error).__module__.startswith("botocore")  # S3 gives no access
        if is_outage(error) or not (refused or isinstance(error, OSError | ValueError)):
            raise
        if not to_read and _is_lake(uri):
            advice = "who may only read it can look: `grist ls`, `show`, `report`, `kickoff --plan` do not write"
            raise BadConfig(f"the lake {uri!r} cannot be written from here: {error}; {advice}") from error
        raise BadConfig(f"the lake {uri!r} cannot be opened: {error}") from error


def _is_lake(uri: str) -> bool:
    """Whether there is a lake that can be read."""
    try:
        return open_store(uri, probe=False).info(MARKER) is not None
    except Exception:  # whatever it was is said of the attempt to write
        return False


def _print_plan(runner: Runner, plan: PlanOnly) -> None:
    for title, done, todo in runner.history:
        print(f"{title}: {done} done, {todo} to run", file=sys.stderr)
    for label in plan.todo[:10]:
        print(f"  {plain(label)}", file=sys.stderr)
    if len(plan.todo) > 10:
        print(f"  and {len(plan.todo) - 10} more", file=sys.stderr)
    print("what follows depends on this stage and is planned when it is done", file=sys.stderr)
    about: dict[str, Any] = {}
    if plan.outlook is not None:
        for line in plan.outlook.lines:
            print(plain(line), file=sys.stderr)
        about["outlook"] = plan.outlook.values
    stages = [{"stage": title, "done": done, "todo": todo} for title, done, todo in runner.history]
    print(json.dumps({"plan": stages, **about}), flush=True)


def _mapping(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise argparse.ArgumentTypeError(f"expected an object, found {type(data).__name__}")
    return data


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    how: dict[str, Any] = {"epilog": help_text(), "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__, **how)
    command = parser.add_subparsers(dest="command", required=True).add_parser("run", help="run a pipeline", **how)
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "config", type=Path, nargs="?", help="a YAML file, or the name of one that comes with gristmill: web"
    )
    source.add_argument("--config-json", type=_mapping, metavar="JSON", help="what such a file holds, as one argument")
    command.add_argument("--set", dest="settings", action="append", default=[], metavar="A.B=VALUE")
    command.add_argument("--lake", help="a directory or s3://bucket/prefix")
    command.add_argument("--plan", action="store_true", help="say what would run, and run nothing")
    command.add_argument("--limit", type=int, help="only so many records; commits to DATASET.limit")
    args = parser.parse_args(argv)
    set_up_logging()
    return run(Request(args.config or args.config_json, tuple(args.settings), args.lake, args.plan, args.limit))

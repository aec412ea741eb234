"""The tokenizer pipeline: a tokenizer.json as a version, trained on exact versions or taken in from a file.

Mixtures name it like any source, so that which tokenizer made which windows is never in doubt. It has no records: its
one shard is the file.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field, model_validator

from lake.balance import Tally
from lake.lease import Lease
from lake.manifest import Draft, InputFile, Manifest, VersionRef, run_key
from lake.objects import ObjectRef, put_file, read_object, scratch
from lake.receipt import StageId
from lake.sources import open_input
from lake.store import Store
from lake.suppress_guard import guarded_list
from lake.versions import Versions
from model.processing.text import Tokenizer
from pipelines.assembly import Committer, Result
from pipelines.config import BadConfig, Named, Root, Run
from pipelines.sources import check_texts, exact
from stages.runner import Runner
from stages.tokenizer import TrainedFacts, TrainTokenizer, tokenizer_work


class Recipe(Named):
    """`sources`: exact versions to train on; or `file`: a tokenizer.json to take in as it is. `limit`: MB of text."""

    dataset: str = "tokenizer"
    sources: tuple[str, ...] = ()
    file: str | None = None
    train: TrainTokenizer = TrainTokenizer()
    limit: int | None = Field(default=None, ge=1, description="megabytes of text; commits to DATASET.limit")

    @model_validator(mode="after")
    def _one_origin(self) -> Recipe:
        if self.file is not None and self.sources:
            raise ValueError(f"file: {self.file!r} is taken in as it is; leave sources out, or file")
        return self

    @property
    def stage(self) -> TrainTokenizer:
        if self.limit is None:
            return self.train
        one = self.train
        return TrainTokenizer(one.vocab_size, min(one.max_bytes, self.limit * 1_000_000), one.min_frequency, one.seed)


class TokenizerConfig(Root):
    pipeline: str = "tokenizer"
    recipe: Recipe = Recipe()
    run: Run = Run()


@dataclass(frozen=True)
class Origin:
    """What a tokenizer comes from: versions to train on, or the bytes of a file."""

    recipe: Recipe
    sources: tuple[Manifest, ...] = ()
    data: bytes = b""

    @classmethod
    def of(cls, recipe: Recipe, versions: Versions) -> Origin:
        """Raises BadConfig for a version that cannot be used, or a file that is no tokenizer.json."""
        if recipe.file is not None:
            try:
                with open_input(recipe.file) as stream:
                    data = stream.read()
                Tokenizer.from_bytes(data)
            except (OSError, ValueError) as error:
                raise BadConfig(f"recipe.file: {recipe.file}: {error}") from error
            return cls(recipe, data=data)
        if not recipe.sources:
            raise BadConfig("recipe.sources is empty: give exact versions, e.g. [web@v3], or a tokenizer.json as file")
        sources = tuple(exact(versions, name, "recipe.sources") for name in dict.fromkeys(recipe.sources))
        for one in sources:
            check_texts(one, "recipe.sources")
        return cls(recipe, sources)

    @property
    def refs(self) -> tuple[VersionRef, ...]:
        return tuple(one.ref.model_copy(update={"role": "trained_on"}) for one in self.sources)

    @property
    def identity(self) -> dict[str, Any]:
        if self.data:
            return {"file": hashlib.sha256(self.data).hexdigest()}
        return {"train": self.recipe.model_dump(mode="json")["train"], "limit": self.recipe.limit}

    @property
    def stages(self) -> tuple[StageId, ...]:
        return () if self.data else self.recipe.stage.identity()

    @property
    def key(self) -> str:
        return run_key(self.recipe.target, self.identity, [], self.stages, self.refs)

    def build(self, runner: Runner) -> Draft:
        ref, facts, inputs = self._taken_in(runner) if self.data else self._trained(runner)
        zero = Tally()
        return Draft(
            dataset=self.recipe.target,
            form="tokenizer",
            run_key=self.key,
            sources=self.refs,
            inputs=inputs,
            recipe=self.identity,
            stages=self.stages,
            shards=(ref,),
            came_in=zero,
            kept=zero,
            dropped=zero,
            quarantined=zero,
            statistics=facts,
        )

    def _trained(self, runner: Runner) -> tuple[ObjectRef, dict[str, Any], tuple[InputFile, ...]]:
        trained = runner.map("tokenizer", [tokenizer_work(self.recipe.stage, self.sources)])[0]
        return trained.output("tokenizer"), asdict(trained.facts_as(TrainedFacts)), ()

    def _taken_in(self, runner: Runner) -> tuple[ObjectRef, dict[str, Any], tuple[InputFile, ...]]:
        runner.about_to("store", str(self.recipe.file))
        entries = Tokenizer.from_bytes(self.data).vocab_size
        with scratch() as folder:
            path = folder / "tokenizer.json"
            path.write_bytes(self.data)
            ref = put_file(runner.store, "tokenizer", path, entries)
        one = InputFile(digest=ref.sha256, bytes=ref.bytes, records=0, names=(str(self.recipe.file),))
        return ref, {"vocab_size": entries}, (one,)


def run_tokenizer(config: TokenizerConfig, store: Store, runner: Runner) -> Result:
    """Runs the pipeline to a committed version, or returns the one this run made before. Raises as `run_web`."""
    started, recipe = time.time(), config.recipe
    with Lease(store, recipe.target) as lease:
        runner.begin(lease.announce)
        suppression = guarded_list(store).digest  # before the sources: what goes meanwhile is noticed
        origin = Origin.of(recipe, Versions(store))
        end = Committer(runner, recipe.target, suppression, started, origin.refs)
        return end.once(origin.key, lambda: origin.build(runner))


def tokenizer_of(versions: Versions, mixture: Manifest) -> Tokenizer:
    """The tokenizer that made a mixture's windows. Raises NoSuchVersion, or LookupError if it names none."""
    for ref in mixture.sources:
        if ref.role == "tokenizer":
            shard = versions.manifest(ref.dataset, ref.version).shards[0]
            return Tokenizer.from_bytes(read_object(versions.store, shard))
    raise LookupError(f"{mixture} was made with no tokenizer: it holds no windows")

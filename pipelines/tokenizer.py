"""The tokenizer pipeline: a tokenizer.json as a version, trained on exact versions or taken in from a file.

Mixtures name it like any source, so that which tokenizer made which windows is never in doubt. It has no records: its
one shard is the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import Field, model_validator

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.inputs.sources import open_input
from gristmill.lake.store.objects import ObjectRef, put_file, read_object, scratch
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, InputFile, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.text import Tokenizer
from gristmill.pipelines.frame.recipe import BuildContext, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.frame.sources import check_texts, exact
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.mix.tokenizer import TrainedFacts, TrainTokenizer, tokenizer_work


class TokenizerRecipe(Recipe):
    """`sources`: exact versions to train on; or `file`: a tokenizer.json to take in as it is. `limit`: MB of text."""

    form: ClassVar[Form] = "tokenizer"

    dataset: str = "tokenizer"
    sources: tuple[str, ...] = ()
    file: str | None = None
    train: TrainTokenizer = TrainTokenizer()
    limit: int | None = Field(default=None, ge=1, description="megabytes of text; commits to DATASET.limit")

    @model_validator(mode="after")
    def _one_origin(self) -> TokenizerRecipe:
        if self.file is not None and self.sources:
            raise ValueError(f"file: {self.file!r} is taken in as it is; leave sources out, or file")
        return self

    def addresses(self) -> Mapping[str, Sequence[str]]:
        """The file, if there is one."""
        return {"recipe.file": (self.file,) if self.file else ()}

    @property
    def stage(self) -> TrainTokenizer:
        """The training, with a limit on no more text than that."""
        if self.limit is None:
            return self.train
        train, most = self.train, self.limit * 1_000_000
        return TrainTokenizer(train.vocab_size, min(train.max_bytes, most), train.min_frequency, train.seed)

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises BadConfig for a version that cannot be used, or a file that is no tokenizer.json."""
        return _taken_in(self.file) if self.file is not None else self._trained(versions)

    def _trained(self, versions: Versions) -> Resolved:
        """Trained on versions. Raises BadConfig for one that cannot be used."""
        if not self.sources:
            raise BadConfig("recipe.sources is empty: give exact versions, e.g. [web@v3], or a tokenizer.json as file")
        sources = tuple(exact(versions, name, "recipe.sources") for name in dict.fromkeys(self.sources))
        for source in sources:
            check_texts(source, "recipe.sources")
        stage = self.stage

        def build(run: BuildContext) -> Draft:
            trained = run.runner.map("tokenizer", [tokenizer_work(stage, sources)])[0]
            return _draft(run, trained.output("tokenizer"), asdict(trained.facts_as(TrainedFacts)))

        identity = {"train": self.model_dump(mode="json")["train"], "limit": self.limit}
        refs = tuple(source.ref.model_copy(update={"role": "trained_on"}) for source in sources)
        return Resolved(identity, stage.identity(), build, sources=refs)


class TokenizerConfig(PipelineConfig):
    """`conf/tokenizer.yaml`."""

    pipeline: str = "tokenizer"
    recipe: TokenizerRecipe = TokenizerRecipe()
    run: Run = Run()


def _taken_in(address: str) -> Resolved:
    """A tokenizer.json as it is: its bytes count, not where it lies. Raises BadConfig for a file that is none."""
    try:
        with open_input(address) as stream:
            data = stream.read()
        entries = Tokenizer.from_bytes(data).vocab_size
    except (OSError, ValueError) as error:
        raise BadConfig(f"recipe.file: {address}: {error}") from error

    def build(run: BuildContext) -> Draft:
        run.runner.about_to("store", address)
        with scratch() as folder:
            path = folder / "tokenizer.json"
            path.write_bytes(data)
            ref = put_file(run.runner.store, "tokenizer", path, entries)
        file = InputFile(digest=ref.sha256, bytes=ref.bytes, records=0, names=(address,))
        return _draft(run, ref, {"vocab_size": entries}, (file,))

    return Resolved({"file": hashlib.sha256(data).hexdigest()}, (), build)


def _draft(
    run: BuildContext, tokenizer: ObjectRef, statistics: dict[str, Any], inputs: tuple[InputFile, ...] = ()
) -> Draft:
    zero = Tally()
    return Draft(
        dataset=run.dataset,
        form=run.form,
        run_key=run.key,
        sources=run.resolved.sources,
        inputs=inputs,
        recipe=run.resolved.identity,
        stages=run.stages,
        shards=(tokenizer,),
        received=zero,
        kept=zero,
        dropped=zero,
        quarantined=zero,
        statistics=statistics,
    )


def tokenizer_of(versions: Versions, mixture: Manifest) -> Tokenizer:
    """The tokenizer that made a mixture's windows. Raises NoSuchVersion, or LookupError if it names none."""
    for ref in mixture.sources:
        if ref.role == "tokenizer":
            shard = versions.manifest(ref.dataset, ref.version).shards[0]
            return Tokenizer.from_bytes(read_object(versions.store, shard))
    raise LookupError(f"{mixture} was made with no tokenizer: it holds no windows")

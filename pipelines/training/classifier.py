"""The classifier pipeline: a fastText model as a version, trained on texts that are wanted and texts that are not.

Positives and negatives are exact versions of documents or samples, or files (JSON lines, Parquet, WET) by path and
pattern; files count by content. What is `held_out`, such as labelled documents, is never trained on, nor what shares 13
words in a row with it. The model is a version like a tokenizer: it has no records, its one shard is the file, and
filters name it (`quality: {model: quality@v1}`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from gristmill.filters.classify.windows import Windows
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.inputs.sources import input_info, open_input
from gristmill.lake.store.objects import put_refs
from gristmill.lake.store.outage import is_outage
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, InputFile, VersionRef
from gristmill.lake.versions.markers import is_exact
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.recipe import BuildContext, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.frame.sources import check_texts, exact
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.classify.texts import (
    HELD_OUT_TEXTS,
    ReadHeldOut,
    ReadTexts,
    TextOrigin,
    held_out_works,
    texts_of_receipts,
    texts_works,
)
from gristmill.stages.classify.train import CLASSIFIER, LEAST, ClassifierFacts, TrainClassifier, statistics, train_work
from gristmill.stages.mix.tokenize import text_shards
from gristmill.stages.read.listing import find_inputs

SIDES = ("positives", "negatives", "held_out")
"""Keys of the recipe that name texts."""
TRAINED_ON, HELD_OUT = "trained_on", "held_out"
"""Roles among a model's sources."""
_BLOCK = 1 << 20


class ClassifierRecipe(Recipe):
    """`positives`, `negatives`, `held_out`: versions and files. `field`: of the files' rows, the one with the text.
    `limit`: documents of a side."""

    form: ClassVar[Form] = "classifier"

    dataset: str = "classifier"
    positives: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    field: str = "text"
    windows: Windows = Windows()
    train: TrainClassifier = TrainClassifier()
    limit: int | None = Field(default=None, ge=20, description="documents of a side; commits to DATASET.limit")

    def addresses(self) -> Mapping[str, Sequence[str]]:
        """Files, not versions."""
        named = {f"recipe.{side}": [name for name in getattr(self, side) if not is_exact(name)] for side in SIDES}
        return {key: names for key, names in named.items() if names}

    @property
    def stage(self) -> TrainClassifier:
        """The training, with a limit on no more documents than that."""
        return self.train if self.limit is None else replace(self.train, most=min(self.train.most, self.limit))

    @property
    def readers(self) -> tuple[ReadHeldOut, ReadTexts]:
        """What reads held-out texts, and those of the two sides."""
        return ReadHeldOut(self.field), ReadTexts(self.windows, self.stage.most, self.field)

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises BadConfig for a side without texts, a version or file that cannot be used, and one on two sides."""
        origins = {side: _origins(versions, getattr(self, side), side, self.field) for side in SIDES}
        for side in ("positives", "negatives"):
            if not origins[side]:
                raise BadConfig(f"recipe.{side} is empty: give exact versions (web@v3) or files with texts")
        _check_apart(origins)
        stages = (*(identity for reader in self._used(origins) for identity in reader.identity()),)
        identity = {
            **{name: self.model_dump(mode="json")[name] for name in ("field", "windows", "train", "limit")},
            **{side: sorted(origin.sha256 for origin in origins[side]) for side in SIDES},
        }

        def build(run: BuildContext) -> Draft:
            return self._build(run, origins)

        refs = _refs(versions, self)
        return Resolved(identity, (*stages, *self.stage.identity()), build, sources=refs)

    def _used(self, origins: Mapping[str, list[TextOrigin]]) -> list[ReadHeldOut | ReadTexts]:
        held_out, texts = self.readers
        return [held_out, texts] if origins["held_out"] else [texts]

    def _build(self, run: BuildContext, origins: Mapping[str, list[TextOrigin]]) -> Draft:
        runner, store = run.runner, run.runner.store
        read_held_out, read_texts = self.readers
        apart = None
        if origins["held_out"]:
            receipts = runner.map("held_out", held_out_works(read_held_out, origins["held_out"]))
            outputs = {receipt.output(HELD_OUT_TEXTS).sha256: receipt.output(HELD_OUT_TEXTS) for receipt in receipts}
            apart = put_refs(store, [outputs[sha256] for sha256 in sorted(outputs)])
        sides = []
        for side in ("positives", "negatives"):
            receipts = runner.map(side, texts_works(read_texts, origins[side], apart))
            sides.append(texts_of_receipts(receipts))
        trained = runner.map("train", [train_work(self.stage, store, *sides)])[0]
        facts = trained.facts_as(ClassifierFacts)
        if facts.seed is None:
            raise GateFailed(_too_few(facts))
        zero = Tally()
        return Draft(
            dataset=run.dataset,
            form=run.form,
            run_key=run.key,
            sources=run.resolved.sources,
            inputs=_inputs(origins),
            recipe=run.resolved.identity,
            stages=run.stages,
            shards=(trained.output(CLASSIFIER),),
            received=zero,
            kept=zero,
            dropped=zero,
            quarantined=zero,
            statistics=dict(statistics(facts)),
        )


class ClassifierConfig(PipelineConfig):
    """`conf/classifier.yaml`."""

    pipeline: str = "classifier"
    recipe: ClassifierRecipe = ClassifierRecipe()
    run: Run = Run()


def _origins(versions: Versions, names: Sequence[str], side: str, field: str) -> list[TextOrigin]:
    """Where the texts of a side are, each content once. Raises BadConfig."""
    key = f"recipe.{side}"
    origins: list[TextOrigin] = []
    for name in dict.fromkeys(names):
        if not is_exact(name):
            continue
        manifest = exact(versions, name, key)
        check_texts(manifest, key)
        origins += [
            TextOrigin(texts.shard.sha256, shard=texts, label=f"{manifest} shard {number}")
            for number, texts in enumerate(text_shards(manifest))
        ]
    try:
        for uri in find_inputs([name for name in names if not is_exact(name)]):
            digest = _digest(uri)
            origins.append(TextOrigin(digest, uri=uri, field=field, label=uri))
    except (OSError, ValueError) as error:
        if is_outage(error):
            raise
        raise BadConfig(f"{key}: {error}") from error
    return list({origin.sha256: origin for origin in origins}.values())


def _check_apart(origins: Mapping[str, list[TextOrigin]]) -> None:
    """Raises BadConfig for a file or shard on two sides."""
    sides: dict[str, str] = {}
    for side, listed in origins.items():
        for origin in listed:
            other = sides.setdefault(origin.sha256, side)
            if other != side:
                raise BadConfig(f"recipe.{side}: {origin.label} is among recipe.{other} too: a text has one label")


def _too_few(facts: ClassifierFacts) -> str:
    """Why there is no model."""
    left_out = ", ".join(f"{reason} {count:,}" for reason, count in facts.left_out.items()) or "nothing"
    return (
        f"{facts.positives:,} positive and {facts.negatives:,} negative documents to train on; at least {LEAST} of each"
        f" are needed. Left out: {left_out}. Give more, or a smaller recipe.train.hold_out; nothing was committed."
    )


def _refs(versions: Versions, recipe: ClassifierRecipe) -> tuple[VersionRef, ...]:
    """The versions that it is made from, each with its role."""
    roles = {"positives": TRAINED_ON, "negatives": TRAINED_ON, "held_out": HELD_OUT}
    named = {name: role for side, role in roles.items() for name in getattr(recipe, side) if is_exact(name)}
    return tuple(exact(versions, name, "recipe").ref.model_copy(update={"role": role}) for name, role in named.items())


def _inputs(origins: Mapping[str, list[TextOrigin]]) -> tuple[InputFile, ...]:
    """The files, as a manifest names them."""
    files = {origin.sha256: origin for listed in origins.values() for origin in listed if origin.uri}
    return tuple(
        InputFile(digest=digest, bytes=_size(origin.uri), records=0, names=(origin.uri,))
        for digest, origin in sorted(files.items())
    )


def _digest(uri: str) -> str:
    """sha256 of a file, hex. Raises OSError."""
    digest = hashlib.sha256()
    with open_input(uri) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _size(uri: str) -> int:
    return input_info(uri).size

"""Small flows over generated lines, for tests of the record flow; what they come to is in flow_reference.py.

Texts are made so that the truth is clear: two bodies have no words in common, and copies of one are equal but for
punctuation, which only exact duplicates tell apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter, below, first_reason
from gristmill.filters.edits.base import Edit, Edited
from gristmill.filters.signatures.minhash import MinHash
from gristmill.filters.text.docs import Docs
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.chunk_steps import Editing, Screening
from gristmill.pipelines.frame.flow import Flow, Step
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.steps import ExactDuplicates, NearDuplicates, RepeatedParagraphs
from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.core.shards import SCHEMA, WriteShards
from gristmill.stages.dedup.exact import Exact
from gristmill.stages.dedup.paragraphs import Paragraphs
from gristmill.stages.near.gather import Gather
from gristmill.stages.near.minhash import GatherSignatures, Sign
from gristmill.stages.read.inputs import ScannedInput, scan_inputs
from gristmill.stages.read.listing import Listing
from gristmill.stages.read.scan import Scan
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.edit import EditTexts
from gristmill.stages.text.extract import Extract
from gristmill.stages.text.screen import Screen

HOSTS = ("one.example", "two.example", "three.example")
BLOCKED, FORGOTTEN = HOSTS[0], HOSTS[1]
WORDS, FOOTERS = 40, 2
LAST = 5
"""The last body, of which an edit leaves nothing."""
SCAN = Scan(chunk_records=4)  # several chunks, though the files are tiny


class Line(NamedTuple):
    """What one line of an input says: a body on a page of a host, `marked` with other punctuation or not."""

    host: int
    page: int
    body: int
    marked: bool

    @property
    def url(self) -> str:
        """Of its page."""
        return f"https://{HOSTS[self.host]}/{self.page}"

    @property
    def text(self) -> str:
        """A body of its own words, the first one too short to stay, and a footer that every other body has as well."""
        words = [f"body{_letters(self.body)}{_letters(n)}" for n in range(WORDS - (self.body == 0))]
        footer = " ".join(f"footer{_letters(self.body % FOOTERS)}{_letters(n)}" for n in range(8))
        return (", " if self.marked else " ").join(words) + "\n" + footer


def _letters(n: int) -> str:
    """A number without digits, which paragraphs are compared without."""
    return chr(97 + n // 26) + chr(97 + n % 26)


@dataclass(frozen=True)
class Blocklist(Filter[Docs]):
    """Drops pages of some hosts."""

    hosts: tuple[str, ...] = (BLOCKED,)

    name: ClassVar[str] = "blocklist"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType({"host": "host"})

    def measure(self, docs: Docs, /) -> pa.RecordBatch:
        assert docs.urls is not None
        hosts = [urlsplit(url).hostname for url in docs.urls.to_pylist()]
        return pa.record_batch([pa.array(hosts, pa.string())], names=["host"])

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        blocked = pc.is_in(measures["host"], pa.array(self.hosts, pa.string())).to_numpy(zero_copy_only=False)
        return first_reason(self.name, measures.num_rows, [("host", blocked)])


@dataclass(frozen=True)
class Long(Filter[Docs]):
    """Drops texts of few words."""

    min_words: int = WORDS + 8

    name: ClassVar[str] = "long"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType({"too_short": "words"})

    def measure(self, docs: Docs, /) -> pa.RecordBatch:
        return pa.record_batch([pa.array([len(text.split()) for text in docs.strings], pa.int64())], names=["words"])

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        return first_reason(self.name, measures.num_rows, [("too_short", below(measures["words"], self.min_words))])


@dataclass(frozen=True)
class Unmark(Edit):
    """Takes the punctuation from marked bodies, so that there are exact duplicates that were none, and all of its text
    from the last body."""

    name: ClassVar[str] = "unmark"
    VERSION: ClassVar[int] = 1

    @property
    def counted(self) -> tuple[str, ...]:
        return ("commas",)

    def edit(self, docs: Docs) -> Edited:
        commas = pa.array([text.count(",") for text in docs.strings], pa.int64())
        return Edited(
            pa.array(["" if is_last(text) else unmarked(text) for text in docs.strings], pa.string()),
            pa.record_batch([commas], names=["commas"]),
        )


def unmarked(text: str) -> str:
    """The text without punctuation."""
    return text.replace(",", "")


def is_last(text: str) -> bool:
    """Whether it is of the last body."""
    return text.startswith(f"body{_letters(LAST)}")


@dataclass(frozen=True)
class WritePlain(WriteShards):
    """Shards without what only a language filter knows."""

    name: ClassVar[str] = "plain_shards"
    schema: ClassVar[pa.Schema] = pa.schema([SCHEMA.field(name) for name in ("id", "url", "text")])
    measured: ClassVar[Mapping[str, str]] = MappingProxyType({})


MINHASH = MinHash(bands=4, rows=4)
PARAGRAPHS = Paragraphs(min_documents=3, max_repeated=0.05)
STEPS: dict[str, Step] = {
    "blocklist": Screening(Screen((Blocklist(),), Docs), "screen hosts"),
    "long": Screening(Screen((Long(),), Docs)),
    "unmark": Editing(EditTexts((Unmark(),))),
    "exact": ExactDuplicates(Exact()),
    "paragraphs": RepeatedParagraphs(PARAGRAPHS),
    "minhash": NearDuplicates(Sign(MINHASH), GatherSignatures(4, 4), Gather(signatures=True), SelectSurvivors()),
}


def recipe_of(flow: Flow) -> RecordRecipe:
    """The recipe of a pipeline that is this flow."""

    class ToyRecipe(RecordRecipe):
        form: ClassVar[Form] = "documents"
        dataset: str = "toy"

        @property
        def flow(self) -> Flow:
            return flow

    return ToyRecipe(scan=SCAN)


def draft_of(
    recipe: RecordRecipe,
    runner: Runner,
    inputs: Sequence[ScannedInput],
    suppression: Suppression,
    base: Manifest | None = None,
) -> Draft:
    """What the frame would commit."""
    resolved = recipe.resolve(Versions(runner.store), suppression.digest)
    key = resolved.key(recipe.target, [scanned.digest for scanned in inputs], base)
    run = BuildContext(runner, recipe.target, recipe.form, key, resolved, suppression, tuple(inputs), base)
    return resolved.build(run)


def flow_of(steps: Sequence[Step]) -> Flow:
    """A flow that reads lines in this process, takes these steps, and writes small shards."""
    return Flow(Extract(seconds_per_record=None), tuple(steps), WritePlain(target_bytes=1500))


def scanned(runner: Runner, path: Path, lines: Sequence[Line], version: int) -> list[ScannedInput]:
    """One input of these lines."""
    rows = [{"url": line.url, "text": line.text, "source": f"version {version}"} for line in lines]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return scan_inputs(runner, SCAN, Listing([str(path)], []))


def content(n: int, **columns: list[Any]) -> pa.Table:
    """The content of a chunk of `n` records of one input, as a stage that reads would write it."""
    given = {
        "id": [f"{i:032x}" for i in range(n)],
        "input": ["f" * 64] * n,
        "ordinal": list(range(n)),
        "start": [10 * i for i in range(n)],
        "length": [10] * n,
        "content": [f"{n - i:032x}" for i in range(n)],
        "url": [f"https://{HOSTS[i % 3]}/{i}" for i in range(n)],
        "text": [f"text {i}" for i in range(n)],
    }
    return pa.table({**given, **columns})

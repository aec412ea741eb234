"""Small flows over generated lines, and what they come to in plain Python: what tests of the record flow share.

Texts are made so that the truth is clear: two bodies have no words in common, and copies of one are equal but for
punctuation, which only exact duplicates tell apart.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter, below, first_reason
from gristmill.filters.signatures.minhash import MinHash
from gristmill.filters.text.docs import Docs
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import record_id
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.flow import Flow, State, Step
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.steps import ExactDuplicates, NearDuplicates, RepeatedParagraphs, Screening
from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.core.shards import SCHEMA, WriteShards
from gristmill.stages.dedup.exact import Exact
from gristmill.stages.dedup.paragraphs import Paragraphs
from gristmill.stages.near.gather import Gather
from gristmill.stages.near.minhash import GatherSignatures, Sign
from gristmill.stages.read.inputs import Listing, ScannedInput, scan_inputs
from gristmill.stages.read.scan import Scan
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.extract import Extract
from gristmill.stages.text.screen import Screen

HOSTS = ("one.example", "two.example", "three.example")
BLOCKED, FORGOTTEN = HOSTS[0], HOSTS[1]
WORDS, FOOTERS = 40, 2
SCAN = Scan(chunk_records=4)  # several chunks, though the files are tiny


class Line(NamedTuple):
    """What one line of an input says: a body on a page of a host, `marked` with other punctuation or not."""

    host: int
    page: int
    body: int
    marked: bool

    @property
    def url(self) -> str:
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


# The same in plain Python


@dataclass(frozen=True)
class Doc:
    """A record as plain values."""

    input: str
    ordinal: int
    line: Line

    @property
    def id(self) -> str:
        own = b"row\0%d\0" % self.ordinal + hashlib.sha256(self.line.text.encode()).digest()
        return record_id(url=self.line.url, source_key=None, own=own)

    @property
    def paragraphs(self) -> list[tuple[str, str, int]]:
        """(host, as compared, bytes) of each."""
        host = HOSTS[self.line.host]
        return [(host, re.sub(r"\W", "", p), len(p)) for p in self.line.text.split("\n")]


@dataclass
class Reference:
    """What earlier versions left, and what each step does to the records that are in."""

    texts: set[str] = field(default_factory=set)
    pages: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    signed: set[tuple[str, ...]] = field(default_factory=set)

    def after(self, step: str, docs: Sequence[Doc]) -> list[Doc]:
        return getattr(self, f"_{step}")(docs)

    def _blocklist(self, docs: Sequence[Doc]) -> list[Doc]:
        return [doc for doc in docs if HOSTS[doc.line.host] != BLOCKED]

    def _long(self, docs: Sequence[Doc]) -> list[Doc]:
        return [doc for doc in docs if doc.line.body != 0]

    def _exact(self, docs: Sequence[Doc]) -> list[Doc]:
        left = _first_of_each(docs, lambda doc: doc.line.text, self.texts)
        self.texts |= {doc.line.text for doc in left}
        return left

    def _paragraphs(self, docs: Sequence[Doc]) -> list[Doc]:
        for doc in docs:
            for host, paragraph, _ in doc.paragraphs:
                self.pages[host, paragraph].add(doc.line.url)
        return [doc for doc in docs if self._repeated(doc) <= PARAGRAPHS.max_repeated]

    def _repeated(self, doc: Doc) -> float:
        sizes = [
            (size, len(self.pages[host, paragraph]) >= PARAGRAPHS.min_documents)
            for host, paragraph, size in doc.paragraphs
        ]
        return sum(size for size, repeated in sizes if repeated) / sum(size for size, _ in sizes)

    def _minhash(self, docs: Sequence[Doc]) -> list[Doc]:
        left = _first_of_each(docs, lambda doc: _words(doc), self.signed)
        self.signed |= {_words(doc) for doc in docs}
        return left


def _words(doc: Doc) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", doc.line.text))


def _first_of_each(docs: Sequence[Doc], key: Any, known: set[Any]) -> list[Doc]:
    """The first by id of those with one key, in their order; none where the key is known."""
    first: dict[Any, Doc] = {}
    for doc in sorted(docs, key=lambda doc: (doc.id, doc.input, doc.ordinal)):
        first.setdefault(key(doc), doc)
    return [doc for doc in docs if key(doc) not in known and first[key(doc)] is doc]


def tally_of(docs: Sequence[Doc]) -> Tally:
    return Tally.of_records([doc.input for doc in docs], [doc.ordinal for doc in docs])


@dataclass
class Checked:
    """A step that is held to the reference: at its end just the reference's records are in."""

    name: str
    reference: Reference
    docs: list[Doc]
    """Those that are in; shared by the steps of a flow."""

    @property
    def step(self) -> Step:
        return STEPS[self.name]

    @property
    def stages(self) -> Any:
        return self.step.stages

    @property
    def deciders(self) -> tuple[str, ...]:
        return self.step.deciders

    @property
    def grows(self) -> Mapping[str, tuple[str, ...]]:
        return self.step.grows

    def run(self, run: BuildContext, state: State) -> State:
        assert state.records.tally == tally_of(self.docs), f"before {self.name}"
        state = self.step.run(run, state)
        self.docs[:] = self.reference.after(self.name, self.docs)
        assert state.records.tally == tally_of(self.docs), f"after {self.name}"
        return state

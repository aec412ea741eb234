"""The record flow in plain Python: what each step of record_flows.py leaves in, one document at a time."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from record_flows import BLOCKED, HOSTS, PARAGRAPHS, STEPS, Line, is_last, unmarked

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import record_id
from gristmill.pipelines.frame.flow import State, Step
from gristmill.pipelines.frame.recipe import BuildContext


@dataclass(frozen=True)
class Doc:
    """A record as plain values. rewritten: its text since an edit; None: as it came."""

    input: str
    ordinal: int
    line: Line
    rewritten: str | None = None

    @property
    def text(self) -> str:
        """As it is now."""
        return self.line.text if self.rewritten is None else self.rewritten

    @property
    def id(self) -> str:
        """As the reader computes it: from the URL, the ordinal and the text."""
        own = b"row\0%d\0" % self.ordinal + hashlib.sha256(self.line.text.encode()).digest()
        return record_id(url=self.line.url, source_key=None, own=own)

    @property
    def paragraphs(self) -> list[tuple[str, str, int]]:
        """(host, as compared, bytes) of each."""
        host = HOSTS[self.line.host]
        return [(host, re.sub(r"\W", "", p), len(p)) for p in self.text.split("\n")]


@dataclass
class Reference:
    """What earlier versions left, and what each step does to the records that are in."""

    texts: set[str] = field(default_factory=set)
    pages: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    signed: set[tuple[str, ...]] = field(default_factory=set)

    def after(self, step: str, docs: Sequence[Doc]) -> list[Doc]:
        """The documents that a step of STEPS leaves in, in their order."""
        return getattr(self, f"_{step}")(docs)

    def _blocklist(self, docs: Sequence[Doc]) -> list[Doc]:
        return [doc for doc in docs if HOSTS[doc.line.host] != BLOCKED]

    def _long(self, docs: Sequence[Doc]) -> list[Doc]:
        return [doc for doc in docs if doc.line.body != 0]

    def _unmark(self, docs: Sequence[Doc]) -> list[Doc]:
        return [replace(doc, rewritten=unmarked(doc.text)) for doc in docs if not is_last(doc.text)]

    def _exact(self, docs: Sequence[Doc]) -> list[Doc]:
        left = _first_of_each(docs, lambda doc: doc.text, self.texts)
        self.texts |= {doc.text for doc in left}
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
        left = _first_of_each(docs, _words, self.signed)
        self.signed |= {_words(doc) for doc in docs}
        return left


def _words(doc: Doc) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", doc.text))


def _first_of_each(docs: Sequence[Doc], key: Any, known: set[Any]) -> list[Doc]:
    """The first by id of those with one key, in their order; none where the key is known."""
    first: dict[Any, Doc] = {}
    for doc in sorted(docs, key=lambda doc: (doc.id, doc.input, doc.ordinal)):
        first.setdefault(key(doc), doc)
    return [doc for doc in docs if key(doc) not in known and first[key(doc)] is doc]


def tally_of(docs: Sequence[Doc]) -> Tally:
    """Of their records, as the ledger counts them."""
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
        """The step itself."""
        return STEPS[self.name]

    @property
    def stages(self) -> Any:
        """Those of the step."""
        return self.step.stages

    @property
    def deciders(self) -> tuple[str, ...]:
        """Those of the step."""
        return self.step.deciders

    @property
    def grows(self) -> Mapping[str, tuple[str, ...]]:
        """As of the step."""
        return self.step.grows

    def run(self, run: BuildContext, state: State) -> State:
        """Runs the step; what is in before and after it has to be what the reference has."""
        assert state.records.tally == tally_of(self.docs), f"before {self.name}"
        state = self.step.run(run, state)
        self.docs[:] = self.reference.after(self.name, self.docs)
        assert state.records.tally == tally_of(self.docs), f"after {self.name}"
        return state

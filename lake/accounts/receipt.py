"""The receipt: the only proof that a piece of work was done.

Work writes its data and ledger objects first and its receipt last, put-if-absent. Resume asks for the receipt
and checks that its outputs exist. The work key hashes what decides the result (stages, their versions and
configs, digests of inputs) and nothing else, so receipts serve every run of the lake. Two attempts at the same
work must write the same identity; if they do not, the stage is not deterministic, and that is an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.facts import FactsT, facts_from_json
from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import Frozen, ObjectRef, brief
from gristmill.lake.store.sealed import seal, unreadable, unseal

FORMAT = 3
"""2: sealed. 3: the balance of children."""

JsonTally = Annotated[
    Tally,
    BeforeValidator(lambda v: v if isinstance(v, Tally) else Tally.from_json(v)),
    PlainSerializer(lambda t: t.to_json()),
]
FATES = ("kept", "dropped", "quarantined")


class NotDeterministic(Exception):
    """Two attempts at one piece of work gave different results."""


class StageId(Frozen):
    """What decides a stage's output besides its input: code of ours, or a package of others, whose `config` says its
    release."""

    name: str
    version: int
    config: dict[str, Any]

    @property
    def edition(self) -> int | str:
        """What tells it from another of its name in one word: VERSION, or of a package its release."""
        release = self.config.get("release")
        return release if isinstance(release, str) else self.version

    def __str__(self) -> str:
        edition = self.edition
        return f"{self.name} v{edition}" if isinstance(edition, int) else f"{self.name} {edition}"


class Receipt(Frozen):
    """What a piece of work read, wrote, and did with every record.

    `passed` go on to the next stage, `kept` ended well here; with `dropped` and `quarantined` they equal `received`.
    Where a record became several (samples, draws), `children_in` of them were there, and each has one verdict in
    `children`. `facts` are small results that the next step needs, as a dict; `facts_as` reads them. `machine_fates`
    counts fates that a memory or wall limit decided: where it is not 0, digest equality is not promised. `info` (time,
    host, attempt) is no part of identity.
    """

    format: int = FORMAT
    work_key: str
    stages: tuple[StageId, ...]
    inputs: tuple[str, ...]
    outputs: tuple[ObjectRef, ...] = ()
    received: JsonTally = Field(default=Tally(), validation_alias="came_in", serialization_alias="came_in")
    passed: JsonTally = Tally()
    kept: JsonTally = Tally()
    dropped: JsonTally = Tally()
    quarantined: JsonTally = Tally()
    reasons: dict[str, int] = {}  # of dropped records
    errors: dict[str, int] = {}  # of quarantined ones
    children_in: JsonTally = Tally()
    children: dict[str, JsonTally] = {}
    facts: dict[str, Any] = {}
    machine_fates: int = 0
    info: dict[str, Any] = {}

    def identity(self) -> str:
        """Of what was done: not of how it was written down, when, or where."""
        return digest_of(canonical(self._result()))

    def _result(self) -> dict[str, Any]:
        aside: Any = {"info": True, "format": True, "outputs": {"__all__": {"sums"}}}
        return self.model_dump(mode="json", exclude=aside)

    def facts_as(self, kind: type[FactsT]) -> FactsT:
        """The facts as the frozen dataclass that the stage handed out. Raises WrongFacts where they do not fit it."""
        stage = self.stages[-1].name if self.stages else "work"
        return facts_from_json(kind, self.facts, f"receipt {self.work_key[:12]} of {stage}")

    def output(self, kind: str) -> ObjectRef:
        """The only output of this kind. Raises KeyError."""
        refs = [ref for ref in self.outputs if ref.kind == kind]
        if len(refs) != 1:
            raise KeyError(f"receipt {self.work_key[:12]}: {len(refs)} outputs of kind {kind!r}, expected one")
        return refs[0]


def canonical(data: Any) -> bytes:
    """One spelling for JSON that is hashed or compared."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def work_key(stages: Sequence[StageId], inputs: Sequence[str]) -> str:
    """The address of a result: never rank, position or path."""
    return digest_of(b"work", canonical([s.model_dump(mode="json") for s in stages]), *inputs)


def _key(key: str) -> str:
    """Where the receipt of a work key stands."""
    return f"receipts/{key[:2]}/{key}.json"


def read_receipt(store: Store, key: str) -> Receipt | None:
    """The receipt of a work key; None if there is none. Raises Unreadable for a damaged one, or another's."""
    try:
        data = store.get(_key(key))
    except NotFound:
        return None
    try:
        receipt = Receipt.model_validate_json(unseal(data))
        if receipt.work_key != key:
            raise ValueError(f"it is the receipt of work {receipt.work_key[:12]}")
        if work_key(receipt.stages, receipt.inputs) != key:
            raise ValueError("its stages and inputs are those of other work")
    except ValueError as error:
        help = "if a newer gristmill wrote it, upgrade; else delete it, and its work is done again"
        raise unreadable(store, _key(key), brief(error), help) from error
    return receipt


def finished(store: Store, key: str) -> Receipt | None:
    """The receipt of done work, or None if it was never done or gc took an output since."""
    receipt = read_receipt(store, key)
    if receipt is None:
        return None
    # By size, as hashing would read everything that a resumed run skips: damage is found where the bytes are used.
    for ref in receipt.outputs:
        info = store.info(ref.key)
        if info is None or info.size != ref.bytes:
            return None
    return receipt


def write_receipt(store: Store, receipt: Receipt, *, deterministic: bool = True) -> Receipt:
    """Puts the receipt if absent and returns the one that counts: this one, or an earlier attempt's of equal identity.

    Of work that is not `deterministic`, or where a machine decided a fate, an earlier one of another identity counts as
    long as its outputs are there. Else two results raise NotDeterministic.
    """
    data = seal(receipt.model_dump_json(indent=1).encode())
    if store.create(_key(receipt.work_key), data):
        return receipt
    earlier = read_receipt(store, receipt.work_key)
    if earlier is None:  # gc removed it between the two calls
        return write_receipt(store, receipt, deterministic=deterministic)
    if earlier.identity() == receipt.identity():
        return earlier
    if deterministic and not (earlier.machine_fates or receipt.machine_fates):
        raise NotDeterministic(
            f"{receipt.stages[-1].name}: two attempts at work {receipt.work_key[:12]} gave different results"
            f" ({_difference(earlier, receipt)}). A stage must depend on nothing but its config and inputs;"
            " if its code changed, raise its VERSION."
        )
    if finished(store, receipt.work_key) is None:  # its outputs are gone, and this machine cannot make them again
        store.put(_key(receipt.work_key), data)
        return receipt
    return earlier


def _difference(a: Receipt, b: Receipt) -> str:
    """The fields in which two results differ, for a message."""
    left, right = a._result(), b._result()
    return ", ".join(name for name in left if left[name] != right[name])

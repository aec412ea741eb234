"""The manifest: everything there is to know about one version of a dataset, in one immutable file.

What decides the data (recipe, inputs, stage versions) gives the `run_key`; the data itself gives the
`content_digest`, over shards and ledgers only, so that the same inputs and recipe have the same digest on any
number of workers and after any kill. Who made it, when, where and from which commit stands beside both, in
`made`. Every manifest names the digest of the one before it, so a chain of versions cannot be rewritten, and is sealed
by its own (lake/store/sealed.py), so that the newest cannot either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gristmill.lake.accounts.balance import check_balance
from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.accounts.receipt import JsonTally, StageId, canonical
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import Frozen, ObjectRef, brief
from gristmill.lake.store.sealed import seal, unseal
from gristmill.lake.versions.folded import Unfolder, fold
from gristmill.lake.versions.form import FORMS, Form, Layout, form_of

FORMAT = 3
"""2: sealed. 3: names the form of its records."""
_WITHOUT_FORM = (1, 2)
RESTORE = "restore the file from a backup or a replica of the lake"

Parsed = TypeVar("Parsed", bound=BaseModel)


class InputFile(Frozen):
    """One input by content. `names` are the addresses it was found under: for people, no part of any key."""

    digest: str
    bytes: int
    records: int
    names: tuple[str, ...] = ()


class VersionRef(Frozen):
    """An exact version of another dataset (or of this one), and the part it played."""

    dataset: str
    version: int
    digest: str
    role: str = "input"

    def __str__(self) -> str:
        return f"{self.dataset}@v{self.version}"


class FunnelRow(Frozen):
    """One stage of the funnel. `received = passed + sum(dropped) + sum(quarantined)`."""

    stage: str
    received: int = Field(validation_alias="came_in", serialization_alias="came_in")
    passed: int
    dropped: dict[str, int] = {}
    quarantined: dict[str, int] = {}

    @model_validator(mode="after")
    def _adds_up(self) -> FunnelRow:
        out = self.passed + sum(self.dropped.values()) + sum(self.quarantined.values())
        if out != self.received:
            raise ValueError(f"funnel: {self.received} records entered {self.stage!r}, {out} left it")
        return self


class Draft(Frozen):
    """A version before it has a slot: everything but its number and its place in the chain. `form` says what its
    records are, and so what its shards are (lake/versions/form.py)."""

    format: int = FORMAT
    dataset: str
    form: Form
    run_key: str
    parent: VersionRef | None = None  # the version this one extends
    sources: tuple[VersionRef, ...] = ()  # exact versions of datasets it was made from, or initialised from
    inputs: tuple[InputFile, ...] = ()
    recipe: dict[str, Any]
    stages: tuple[StageId, ...]
    shards: tuple[ObjectRef, ...] = ()
    ledgers: tuple[ObjectRef, ...] = ()
    attachments: tuple[ObjectRef, ...] = ()  # measures, content hashes, receipts: kept, outside the content digest
    schemas: dict[str, str] = {}
    received: JsonTally = Field(validation_alias="came_in", serialization_alias="came_in")
    kept: JsonTally
    dropped: JsonTally
    quarantined: JsonTally
    samples: JsonTally | None = None  # fan-out: the children, with a balance of their own over `verdicts`
    verdicts: dict[str, JsonTally] = {}
    machine_fates: int = 0
    funnel: tuple[FunnelRow, ...] = ()
    statistics: dict[str, Any] = {}
    made: dict[str, Any] = {}

    @property
    def content_digest(self) -> str:
        """Of shards and ledgers: what the data is, whoever made it."""
        return content_digest(self.shards, self.ledgers)

    @property
    def layout(self) -> Layout:
        """What its shards are."""
        return FORMS[self.form]

    @property
    def fates(self) -> tuple[ObjectRef, ...]:
        """The ledgers that say what became of each record that came in (lake/accounts/ledger.py)."""
        return tuple(ref for ref in self.ledgers if ref.kind == "ledger")

    @property
    def members(self) -> tuple[ObjectRef, ...]:
        """The ledgers that say which records lie in which group of a tar (lake/accounts/fan.py), one for each tar, in
        order."""
        return tuple(ref for ref in self.ledgers if ref.kind == "members")

    def objects(self) -> Iterable[ObjectRef]:
        """Shards, ledgers and attachments, in this order."""
        return (*self.shards, *self.ledgers, *self.attachments)

    def check_shards(self) -> None:
        """Raises ValueError unless every shard is of a kind that this form has."""
        if unknown := sorted({ref.kind for ref in self.shards if self.layout.kind(ref.kind) is None}):
            allowed = ", ".join(kind.kind for kind in self.layout.kinds)
            raise ValueError(
                f"{self.dataset}: shards of kind {', '.join(unknown)} in a version of {self.form}; allowed: {allowed}."
                " Give the version another form, or the form another row in lake/versions/form.py"
            )

    def check(self) -> None:
        """Raises BalanceError unless every record that came in has one fate, and every sample one verdict."""
        fates = {"kept": self.kept, "dropped": self.dropped, "quarantined": self.quarantined}
        check_balance(f"{self.dataset}: commit", self.received, fates)
        if self.samples is not None:
            check_balance(f"{self.dataset}: commit, samples", self.samples, self.verdicts)


class Manifest(Draft):
    """A committed version. `previous` is the sha256 of the manifest in the slot before."""

    version: int
    previous: str | None
    digest: str

    @model_validator(mode="before")
    @classmethod
    def _with_form(cls, data: Any) -> Any:
        """As it is since format 3."""
        if not isinstance(data, dict) or data.get("format") not in _WITHOUT_FORM or "form" in data:
            return data
        recipe, shards = data.get("recipe"), data.get("shards")
        # This is before validation, so that anything may stand there; what is wrong is passed over, and told by it.
        kinds: set[str] = set()
        if isinstance(shards, list):
            kinds = {str(shard.get("kind")) for shard in shards if isinstance(shard, dict)}
        return {**data, "form": form_of(recipe if isinstance(recipe, dict) else {}, kinds)}

    @property
    def ref(self) -> VersionRef:
        """A pointer to this version."""
        return VersionRef(dataset=self.dataset, version=self.version, digest=self.digest)

    def __str__(self) -> str:
        return f"{self.dataset}@v{self.version}"


class Outline(BaseModel):
    """What looking a record up needs of a version: the rest of its manifest is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dataset: str
    version: int
    digest: str
    ledgers: tuple[ObjectRef, ...] = ()

    @property
    def fates(self) -> tuple[ObjectRef, ...]:
        """As `Draft.fates`."""
        return tuple(ref for ref in self.ledgers if ref.kind == "ledger")

    def __str__(self) -> str:
        return f"{self.dataset}@v{self.version}"


def stored_bytes(manifest: Manifest) -> int:
    """Bytes of the distinct shards and ledgers of a version."""
    return sum({ref.sha256: ref.bytes for ref in (*manifest.shards, *manifest.ledgers)}.values())


def encode(manifest: Manifest) -> bytes:
    """As it stands in its slot."""
    return seal(manifest.model_dump_json(indent=1).encode())


def parse(data: bytes) -> Manifest:
    """The manifest of a file. Raises ValueError, saying what is wrong with it in one line."""
    return _parsed(Manifest, data)


def parse_outline(data: bytes) -> Outline:
    """The same of its outline."""
    return _parsed(Outline, data)


def _parsed(model: type[Parsed], data: bytes) -> Parsed:
    try:
        return model.model_validate_json(unseal(data))
    except ValueError as error:
        raise ValueError(brief(error)) from error


def folded(store: Store, manifest: Manifest) -> Manifest:
    """As it is written: long lists of shards and ledgers by pointers to lists, which are written now."""
    lists = {"shards": fold(store, manifest.shards), "ledgers": fold(store, manifest.ledgers)}
    return manifest.model_copy(update=lists)


def unfolded(unfolder: Unfolder, manifest: Manifest) -> Manifest:
    """As it is used. Raises NotFound, DamagedObject."""
    lists = {"shards": unfolder.unfold(manifest.shards), "ledgers": unfolder.unfold(manifest.ledgers)}
    return manifest.model_copy(update=lists)


def content_digest(shards: Iterable[ObjectRef], ledgers: Iterable[ObjectRef]) -> str:
    """sha256 over kind, digest and rows of shards and ledgers, in order."""
    return digest_of(b"content", *(f"{ref.kind} {ref.sha256} {ref.records}" for ref in (*shards, *ledgers)))


def run_key(
    dataset: str,
    recipe: dict[str, Any],
    inputs: Iterable[str],
    stages: Sequence[StageId],
    sources: Iterable[VersionRef] = (),
) -> str:
    """What a run will make, known before it runs. `inputs` are digests; they are a set."""
    return digest_of(
        b"run",
        dataset,
        canonical(recipe),
        canonical(sorted(set(inputs))),
        canonical([s.model_dump(mode="json") for s in stages]),
        canonical([[s.dataset, s.version, s.digest, s.role] for s in sources]),
    )

"""Takedown: records leave every version that is given out, and cannot come back.

In this order, so that the same command finishes after a crash at any point: the request goes on the suppression list;
each dataset whose latest version holds a record gets a clean one on top, mixtures too; mixtures that cannot say what
they hold are withdrawn, then every version that holds a record. Nothing remembers how far it came: what is left to do
is what still holds a record, so that a second run finds the clean version there and makes no other. gc erases
afterwards. A text that was dropped as a duplicate of a forgotten one stays dropped, and its number is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, iter_batches
from gristmill.lake.takedown.groups import NotRewritable
from gristmill.lake.takedown.plan import Affected, Derived, ForgetPlan, ForgetReport
from gristmill.lake.takedown.rewrite import ROLE, clean_version
from gristmill.lake.takedown.search import Search
from gristmill.lake.takedown.seen import Seen
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.lease import Lease
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import CommitConflict, Versions

NO_RECORDS = frozenset({"trained_on", "tokenizer", "classifier", "init_from", "held_out"})
"""Roles in which no record goes from one version into another: merges of characters hold no text, nor do weights as
records. A role is compared up to its first dot, as `init_from.language`."""
UNTOUCHED = frozenset({"held_out"})
"""Roles in which nothing of a version goes into another: what a model was not trained on."""
WINDOWS = "windows"  # the form of a mixture
ROUNDS = 20
"""How often other commits may come first before forget gives up."""


def plan_forget(versions: Versions, request: Suppression) -> ForgetPlan:
    """What forgetting would do. Changes nothing. Raises ValueError for an empty request, and what reading raises."""
    return _Forgetting(versions, request).plan()


def forget(
    versions: Versions,
    plan: ForgetPlan,
    reason: str,
    provenance: Callable[[], dict[str, Any]] | None = None,
) -> ForgetReport:
    """Does it. `reason` is written to the lake: no personal data. `provenance` gives who, when and with what code, for
    the new manifests (`Draft.made`); None: the time alone.

    Looks again before every step that a commit of others could spoil. Raises CommitConflict after ROUNDS of those.
    """
    with Lease(versions.store, "forget") as lease:
        lease.announce("forget", [])  # gc keeps what is written from now on
        plan.request.save(versions.store, reason)
        return _Forgetting(versions, plan.request).run(plan, reason, provenance or _time_only)


def _time_only() -> dict[str, Any]:
    return {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


class _Forgetting:
    """One request and what is known of the lake; each `plan` reads only what is new since the one before."""

    def __init__(self, versions: Versions, request: Suppression) -> None:
        if not request:
            raise ValueError("forget: the request has no entries; give at least one id, URL, domain or medium")
        self.versions, self.request = versions, request
        self.search = Search(versions, request)
        self.refused: dict[str, str] = {}  # version -> why it has no successor
        self._followers: dict[tuple[str, int], int] = {}
        self._draws: dict[tuple[str, int], bool] = {}
        self.mark = f"forget {request.digest[:12]}: "

    def plan(self) -> ForgetPlan:
        """What is left to do, as the lake is now."""
        self.search.look()
        seen = self.search.versions
        affected = [dataset for name in seen if (dataset := self._affected(name, seen[name])) is not None]
        given_out = [version for version in self.search.all_versions() if not version.withdrawn]
        unsearched = [
            str(version) for version in given_out if version.form != WINDOWS and not self.search.knows(version)
        ]
        derived = tuple(self._derived())
        return ForgetPlan(
            request=self.request,
            affected=tuple(affected),
            derived=derived,
            unsearched=tuple(unsearched),
            ids=len(self.search.ids),
            texts_gone=self.search.texts_gone,
            without_url=self.search.without_url(),
            unknown=tuple(self._unknown({version.ref for version in derived})),
        )

    def run(self, first: ForgetPlan, reason: str, provenance: Callable[[], dict[str, Any]]) -> ForgetReport:
        """Acts until a look finds nothing left to do. `first`: the plan that the report is about."""
        new: list[tuple[str, str]] = []
        away: list[str] = []
        for _ in range(ROUNDS):
            plan = self.plan()
            if plan.nothing:
                refused = {ref: why for ref, why in self.refused.items() if ref in away}
                return ForgetReport(first, tuple(new), tuple(away), refused)
            bases = [(dataset.dataset, dataset.base) for dataset in plan.affected if dataset.base is not None]
            if bases:
                # Nothing is withdrawn before every dataset has its clean version: who opens `web` meanwhile, or after
                # a crash, has the old one or the new one, and never none.
                for name, base in bases:
                    pair = self._succeed(name, base, provenance)
                    if pair is not None:
                        new.append(pair)
            else:
                away += self._withdraw(plan, reason)
        raise CommitConflict(
            f"forget: other runs committed first {ROUNDS} times; the request is on the suppression list, and what was"
            " done stays done. Run the same command again, best when no other run is committing."
        )

    def _succeed(self, name: str, base: int, provenance: Callable[[], dict[str, Any]]) -> tuple[str, str] | None:
        """Commits the clean version. None if another commit came first, or if none can be made: the next look tells."""
        manifest = self.versions.manifest(name, base)
        try:
            draft = clean_version(self.versions, manifest, self.request, self.search.gone, self.search.rows)
            # without the commit id, which would stand in for the one that each commit draws for itself
            about = {key: value for key, value in provenance().items() if key != "commit_id"}
            draft = draft.model_copy(update={"made": about})
            return str(manifest), str(self.versions.commit(draft, expected_parent=base))
        except NotRewritable as error:
            self.refused[str(manifest)] = str(error)
        except CommitConflict:
            pass
        return None

    def _withdraw(self, plan: ForgetPlan, reason: str) -> list[str]:
        """What was made from them first: it is found through the versions that are withdrawn after it."""
        made_from_them = [_name_and_number(derived.ref) for derived in plan.derived if derived.withdraw]
        holders = [(dataset.dataset, version) for dataset in plan.affected for version in dataset.withdraw]
        for dataset in plan.affected:
            if dataset.why_not is not None:
                self.refused.setdefault(f"{dataset.dataset}@v{max(dataset.withdraw)}", dataset.why_not)
        for name, version in [*made_from_them, *holders]:
            self.versions.withdraw(name, version, f"{self.mark}{reason}")
        return [f"{name}@v{version}" for name, version in [*made_from_them, *holders]]

    def _affected(self, name: str, seen: list[Seen]) -> Affected | None:
        """What is to be done with a dataset; None if no version that is given out holds a record. `seen`: in order."""
        given_out = [version for version in seen if not version.withdrawn]
        holders = [version for version in given_out if self.search.holds(version)]
        if not holders:
            return None
        # Only the latest version needs a successor. Where it holds no record (any more), the clean one is there.
        newest, why_not = holders[-1], None
        if newest is given_out[-1]:
            why_not = self.refused.get(str(newest)) or self._why_not(newest)
        numbers = tuple(version.ref.version for version in holders)
        tags = self.versions.tags(name)
        return Affected(
            dataset=name,
            withdraw=numbers,
            base=newest.ref.version if newest is given_out[-1] and why_not is None else None,
            why_not=why_not,
            records=self.search.count(newest),
            rows=self.search.kinds((*newest.members, *newest.attachments)),
            followers=self._count_followers(self.versions.manifest(name, newest.ref.version)),
            tags=tuple(sorted(tag for tag, number in tags.items() if number in numbers)),
        )

    def _why_not(self, version: Seen) -> str | None:
        """Why no clean version can be made of this one, as far as is known without trying; None: it can."""
        if version.not_rewritable is None and not self.search.knows(version):
            return "some of its shards have no ids"
        return version.not_rewritable

    def _count_followers(self, manifest: Manifest) -> int:
        """How many records were dropped as duplicates of one that goes, and are not asked for themselves."""
        key = (manifest.dataset, manifest.version)
        if key not in self._followers:
            gone = pa.array(sorted(self.search.ids), pa.string())
            self._followers[key] = sum(_followers_in(self.versions.store, ref, gone) for ref in manifest.fates)
        return self._followers[key]

    def _derived(self) -> Iterable[Derived]:
        """Everything made from a version that holds a record, or that this request withdrew; however indirectly."""
        seen = self.search.all_versions()
        roots = {str(version) for version in seen if self.search.holds(version)}
        # What an earlier attempt of this request withdrew may hold nothing any more, as gc took its objects: the reason
        # of its withdrawal, which begins with the mark, says that it did.
        for name in self.search.versions:
            for number, why in self.versions.withdrawn(name).items():
                if why.startswith(self.mark):
                    roots.add(f"{name}@v{number}")
        roots |= _replaced(seen, roots)
        derived = _reached(seen, roots, UNTOUCHED)
        with_records = _reached(seen, roots, NO_RECORDS)  # of these, those that records came into
        for version in seen:
            ref = str(version)
            if ref in derived and ref not in roots and not version.withdrawn:
                unknown = version.form == WINDOWS and ref in with_records and not self.search.knows(version)
                withdraw = unknown and self._drew(version)
                yield Derived(ref, with_records.get(ref, derived[ref]), withdraw, version.form)

    def _unknown(self, known: Collection[str]) -> Iterable[str]:
        """Models made from versions that are erased, however indirectly. Where a clean version took the place of one,
        it tells what that held."""
        seen = self.search.all_versions()
        replaced = _replaced(seen, {str(version) for version in seen})
        erased = {str(version) for version in seen if self.search.is_erased(version)} - replaced
        reached = _reached(seen, erased, UNTOUCHED)
        for version in seen:
            ref = str(version)
            if version.form == "model" and not version.withdrawn and ref in reached and ref not in known:
                yield ref

    def _drew(self, version: Seen) -> bool:
        """Whether a mixture kept one of these records, and so has it in its windows. Its ledger says so."""
        key = str(version), len(self.search.ids)  # ids are only added: as many are the same
        if key not in self._draws:
            fates = self.versions.manifest(version.ref.dataset, version.ref.version).fates
            self._draws[key] = not fates or any(self._keeps(ref) for ref in fates)
        return self._draws[key]

    def _keeps(self, ref: ObjectRef) -> bool:
        """Whether a ledger has one of these records as kept."""
        for batch in iter_batches(self.versions.store, ref, ["id", "fate"]):
            hit = pa.array(self.search.gone.match(batch["id"]))
            if pc.any(pc.and_(hit, pc.equal(batch["fate"], "kept"))).as_py():
                return True
        return False


def _name_and_number(ref: str) -> tuple[str, int]:
    name, _, number = ref.rpartition("@v")
    return name, int(number)


def _replaced(seen: Sequence[Seen], roots: Collection[str]) -> set[str]:
    """What the clean versions among these took the place of, however long ago: it held all that they hold, and models
    were trained on it before."""
    by_ref = {str(version): version for version in seen}
    replaced: set[str] = set()
    todo = list(roots)
    while todo:
        version = by_ref.get(todo.pop())
        parent = None if version is None else version.parent
        if parent is not None and parent.role == ROLE and str(parent) not in replaced:
            replaced.add(str(parent))
            todo.append(str(parent))
    return replaced


def _reached(seen: Sequence[Seen], roots: Iterable[str], without: frozenset[str]) -> dict[str, str]:
    """What was made from these, however indirectly, but not in a role of `without`: version -> role, of several the
    first one that it names."""
    reached, grown = set(roots), True
    # Round after round until none is added: versions come by dataset, so that one may stand before its source.
    while grown:
        more = {str(version) for version in seen if _role(version, reached, without) is not None} - reached
        reached, grown = reached | more, bool(more)
    return {str(version): _role(version, reached, without) or "" for version in seen if str(version) in reached}


def _role(version: Seen, reached: Collection[str], without: frozenset[str]) -> str | None:
    """In which role one of `reached` went into a version; None: none did."""
    roles = (role for ref, role in _made_from(version) if ref in reached)
    return next((role for role in roles if role.partition(".")[0] not in without), None)


def _made_from(version: Seen) -> list[tuple[str, str]]:
    """(version, role). A clean successor is made from nothing that holds a record: neither from what it replaces nor,
    if it is a mixture, from what that was mixed from."""
    if version.parent is not None and version.parent.role == ROLE:
        return []
    above = [(str(source), source.role) for source in version.sources]
    return above if version.parent is None else [*above, (str(version.parent), "extends")]


def _followers_in(store: Store, ref: ObjectRef, gone: pa.Array) -> int:
    """How many rows of a ledger name one of these as their survivor, and are not themselves among them."""
    count = 0
    for batch in iter_batches(store, ref, ["id", "survivor"]):
        named = pc.and_not(pc.is_in(batch["survivor"], gone), pc.is_in(batch["id"], gone))
        count += pc.sum(named).as_py() or 0
    return count

"""Gates between pipelines: why a version is held for a person to look at, before anything is made from it.

A version is held against itself (what was kept, what could not be read) and against another one of its dataset: the
kept rate, and the distributions of language, length and topic. Of a version that extends another, what it added is
compared. All but the topics stands in the manifests; topics are the words of a few hundred records of both, since no
statistic of a manifest says what texts are about. With which other version, and what becomes of those that contain one
that is held, is decided in pipelines/gates/passing.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.lake.query.sampling import sample
from gristmill.lake.store.base import NotFound
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.statistics import TextStatistics
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.gates.drift import changes, common, stability_index, topic_drift
from gristmill.pipelines.settings.config import Root, validate

MOST_QUARANTINED = 0.05
"""Of the records of a version whose recipe does not say."""


@dataclass(frozen=True)
class Gates:
    """When a version is held. None leaves a gate out; but for `max_quarantine_rate` it is the recipe's own key of this
    name, and 5% where a recipe has none.

    `min_kept_rate`: of the records that came in; by default only a version that kept nothing is held, since curation
    of a crawl keeps 1% and chats nearly all.
    `max_kept_change`: by what factor the kept rate may rise or fall; our choice, nothing published says.
    `max_language_drift`, `max_length_drift`: the population stability index of the two distributions, of which .25
    is called a significant shift since Siddiqi, Credit Risk Scorecards (2006).
    `max_topic_drift`: Jensen-Shannon divergence (base 2, 0 to 1) of the words of `topic_records` records of each side.
    Measured on crawl pages and 12 sets of maths, code and science questions: halves of 127 to 400 records
    are .01 to .05 apart, train and test of GSM8K .016, different sets .14 to .98 (MATH and Gaokao alone .07).
    `min_records`: with fewer on either side nothing is compared: by chance alone the index of ten bins then passes .17
    once in twenty times (it is chi-squared of nine degrees of freedom, times 1/n + 1/m: Yurdakul 2018).
    """

    min_kept_rate: float | None = 0.0
    max_quarantine_rate: float | None = None
    max_kept_change: float | None = 2.0
    max_language_drift: float | None = 0.25
    max_length_drift: float | None = 0.25
    max_topic_drift: float | None = 0.1
    topic_records: int = 400
    min_records: int = 200

    def __post_init__(self) -> None:
        for name in ("min_kept_rate", "max_quarantine_rate", "max_topic_drift"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: from 0 to 1, or null")
        if self.max_kept_change is not None and self.max_kept_change < 1:
            raise ValueError(f"max_kept_change={self.max_kept_change}: a factor, at least 1, or null")
        for name in ("topic_records", "min_records"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1")


def limits_of(given: Mapping[str, Any] | None) -> Gates:
    """The defaults with these in their place. Raises BadConfig."""
    return validate(_Given, {"gates": given or {}}).gates


class _Given(Root):
    gates: Gates


@dataclass(frozen=True)
class Intake:
    """What one version took in: all of it, or what it added to the version that it extends."""

    name: str
    version: str
    received: int
    kept: int
    quarantined: int
    texts: TextStatistics | None
    max_quarantine_rate: float

    @classmethod
    def of(cls, manifest: Manifest, base: Manifest | None = None) -> Intake:
        """`base`: the version that it extends."""
        received, kept, quarantined = manifest.received.count, manifest.kept.count, manifest.quarantined.count
        texts, most = _texts_of(manifest), float(manifest.recipe.get("max_quarantine_rate", MOST_QUARANTINED))
        if base is None:
            return cls(str(manifest), str(manifest), received, kept, quarantined, texts, most)
        received -= base.received.count
        kept -= base.kept.count
        quarantined -= base.quarantined.count
        old = _texts_of(base)
        texts = texts.less(old) if texts is not None and old is not None else None
        return cls(f"what {manifest} added", str(manifest), received, kept, quarantined, texts, most)

    @property
    def kept_rate(self) -> float:
        """Of the records that came in; 1 where none did."""
        return self.kept / self.received if self.received else 1.0


def held_against(
    versions: Versions, manifest: Manifest, last: Manifest | None, base: Manifest | None, gates: Gates
) -> list[str]:
    """Why a version may not go on, a sentence a reason; nothing: it may. `last`: what it is compared with; `base`: the
    version that it extends, so that only what it added is."""
    reasons = held_by_counts(manifest, last, base, gates)
    if last is None or gates.max_topic_drift is None:
        return reasons
    try:
        samples = [_sampled(versions, of, gates.topic_records) for of in (_added(manifest, base), last)]
    except NotFound:
        gone = [of for of in (manifest, last) if of.version in versions.withdrawn(of.dataset)]
        if not gone:  # it is damaged; of a withdrawn version gc has taken the records
            raise
        return [*reasons, *_never_to_be_known(Intake.of(manifest, base), Intake.of(last), gone, gates)]
    if any(len(texts) < min(gates.min_records, gates.topic_records) for texts in samples):
        return reasons
    drift, words = topic_drift(*samples)
    if drift > gates.max_topic_drift:
        reasons.append(
            f"topics: the words of {Intake.of(manifest, base).name} and of {last} are {drift:.2f} apart, at most"
            f" {gates.max_topic_drift:g} is allowed; most changed: {', '.join(words)}"
        )
    return reasons


def _never_to_be_known(new: Intake, last: Intake, gone: Sequence[Manifest], gates: Gates) -> list[str]:
    """Why a version is held whose topics would have been compared. What was held must not pass because the records that
    said so are gone, and of what was never judged nobody knows."""
    if min(new.kept, last.kept) < min(gates.min_records, gates.topic_records):
        return []
    names = " and ".join(map(str, gone))
    return [
        f"topics: the records of {names} were taken down, and gc has taken them, so that nothing tells any more how far"
        f" the words of {new.name} and of {last.name} are apart; look at what came of it (`grist stats`, `grist"
        f" sample`) and accept {new.version}, or a version that contains it"
    ]


def held_by_counts(manifest: Manifest, last: Manifest | None, base: Manifest | None, gates: Gates) -> list[str]:
    """The reasons that manifests tell, without reading a record. `last`, `base`: as of `held_against`."""
    new = Intake.of(manifest, base)
    reasons = _held_alone(new, gates)
    if last is not None and min(new.received, last.received.count) >= gates.min_records:
        reasons += _held_against(new, Intake.of(last), gates)
    return reasons


def _held_alone(new: Intake, gates: Gates) -> list[str]:
    if not new.received:
        return []
    reasons = []
    least = f"{gates.min_kept_rate:.1%}" if gates.min_kept_rate else "one"
    if gates.min_kept_rate is not None and (new.kept_rate < gates.min_kept_rate or not new.kept):
        reasons.append(
            f"kept rate: {new.name} kept {new.kept:,} of {new.received:,} records ({new.kept_rate:.1%}), at least"
            f" {least} has to be kept; `grist show {new.version}` says why records were dropped"
        )
    rate = new.quarantined / new.received
    most = new.max_quarantine_rate if gates.max_quarantine_rate is None else gates.max_quarantine_rate
    if rate > most:
        reasons.append(
            f"quarantine: {new.quarantined:,} of the {new.received:,} records of {new.name} ({rate:.1%}) could not be"
            f" read, at most {most:.1%} are allowed;"
            f" `grist sample {new.version} --fate quarantined` shows some"
        )
    return reasons


def _held_against(new: Intake, last: Intake, gates: Gates) -> list[str]:
    reasons = []
    if gates.max_kept_change is not None and new.kept and last.kept:
        factor = new.kept_rate / last.kept_rate
        if max(factor, 1 / factor) > gates.max_kept_change:
            reasons.append(
                f"kept rate: {new.name} kept {new.kept_rate:.1%} of its records, {last.name} {last.kept_rate:.1%};"
                f" a change by a factor of {gates.max_kept_change:g} at most is allowed"
            )
    if new.texts is None or last.texts is None or min(new.kept, last.kept) < gates.min_records:
        return reasons
    pairs = (
        ("languages", gates.max_language_drift, common(new.texts.languages, last.texts.languages)),
        ("lengths", gates.max_length_drift, (new.texts.bytes_from, last.texts.bytes_from)),
    )
    for name, most, (now, before) in pairs:
        if most is None or not sum(now.values()) or not sum(before.values()):
            continue
        drift = stability_index(now, before)
        if drift > most:
            reasons.append(
                f"{name}: those of {new.name} and of {last.name} are {drift:.2f} apart, at most {most:g} is allowed;"
                f" most changed: {changes(now, before, 'from {} bytes' if name == 'lengths' else '{}')}"
            )
    return reasons


def _texts_of(manifest: Manifest) -> TextStatistics | None:
    if manifest.layout.statistics is not TextStatistics:
        return None
    return TextStatistics.of(manifest.statistics)


def _added(manifest: Manifest, base: Manifest | None) -> Manifest:
    """The version with the shards that the one that it extends has not."""
    there = set[str]() if base is None else {ref.sha256 for ref in base.shards}
    return manifest.model_copy(update={"shards": tuple(ref for ref in manifest.shards if ref.sha256 not in there)})


def _sampled(versions: Versions, manifest: Manifest, n: int) -> list[str]:
    """The texts of a few kept records, the same ones at every call; none where its shards are no tables of texts."""
    layout = manifest.layout
    if layout.shown != "texts" or any(layout.holds(ref.kind) != "rows" for ref in manifest.shards):
        return []
    return [record.text for record in sample(versions, manifest, n).samples if record.text]

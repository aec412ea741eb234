"""The books of a mixture from which records were cut: its draws, and its statistics.

A record that is drawn n times stands in windows n times, and each of those draws was counted at commit. They do not
vanish: what was `packed` becomes `forgotten`, so that all draws still have one verdict each. A draw goes whole, however
many windows it was cut over, because members name every stretch of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.accounts.fan import Draw, draw_tally
from gristmill.lake.store.objects import read_table
from gristmill.lake.takedown.groups import CutShard, NotRewritable
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.statistics import WindowStatistics
from gristmill.lake.versions.versions import Versions

PACKED, FORGOTTEN = "packed", "forgotten"
"""Verdicts of a draw."""


def draws_gone(cuts: Iterable[CutShard]) -> dict[Draw, list[int]]:
    """Each draw that was cut out, with the lengths in tokens of its stretches."""
    draws: dict[Draw, list[int]] = {}
    for cut in cuts:
        for row in cut.gone.to_pylist():
            draws.setdefault((row["source"], row["member"], row["epoch"]), []).append(row["length"])
    return draws


def records_gone(draws: Iterable[Draw]) -> list[str]:
    """The ids of the records of these draws, once for each row that a ledger has: of two sources, twice."""
    return sorted(record for _, record in {(source, record) for source, record, _ in draws})


def statistics_without(base: Manifest, cuts: Sequence[CutShard], draws: Mapping[Draw, Sequence[int]]) -> dict[str, Any]:
    """The statistics of `base`, less what was cut out."""
    before, window = WindowStatistics.of(base.statistics), int(base.recipe["window"])
    never_cut = {share.source for share in before.mixture if share.samples}  # whose draws are counted as samples
    tokens = dict.fromkeys((share.source for share in before.mixture), 0)
    for (source, _, _), lengths in draws.items():
        tokens[source] += sum(lengths)
    documents = [lengths for (source, _, _), lengths in draws.items() if source not in never_cut]
    gone = WindowStatistics(
        windows=sum(cut.groups for cut in cuts),
        tokens=sum(tokens.values()),
        loss_tokens=sum(cut.loss_tokens for cut in cuts),
        waste=0.0,
        documents=len(documents),
        documents_cut=sum(len(lengths) > 1 for lengths in documents),
        documents_too_long=sum(sum(lengths) > window for lengths in documents),
        samples=len(draws) - len(documents),
        mixture=tuple(replace(share, drawn=tokens[share.source]) for share in before.mixture),
        **sum((Counter(cut.media) for cut in cuts), Counter[str]()),
    )
    return before.less(gone, window).into(base.statistics)


def verdicts_without(versions: Versions, base: Manifest, draws: Iterable[Draw]) -> dict[str, Tally]:
    """The verdicts of all draws of `base`, these being forgotten. Raises NotRewritable for one that no ledger has."""
    if base.samples is None:  # its draws were not counted
        return base.verdicts
    gone = _tally(versions, base, list(draws))
    forgotten = base.verdicts.get(FORGOTTEN, Tally()) + gone
    return {**base.verdicts, PACKED: base.verdicts[PACKED] - gone, FORGOTTEN: forgotten}


def _tally(versions: Versions, base: Manifest, draws: Sequence[Draw]) -> Tally:
    """The tally of these draws as the mixture counted them: by where the record stands in its source, which the
    mixture's own ledger says, with the shard as the input. Raises NotRewritable for one that it does not have."""
    of_source: dict[str, str] = {}  # shard -> the source that it is of
    for source in base.sources:
        shards = versions.manifest(source.dataset, source.version).shards
        of_source.update((ref.sha256, str(source)) for ref in shards)
    wanted = pa.array(sorted({record for _, record, _ in draws}), pa.string())
    places: dict[tuple[str, str], tuple[str, int]] = {}
    for ref in base.fates:
        for row in read_table(versions.store, ref, ["id", "input", "ordinal"], pc.field("id").isin(wanted)).to_pylist():
            places[of_source.get(row["input"], ""), row["id"]] = (row["input"], row["ordinal"])
    tallies = []
    for name, record, epoch in draws:
        if (name, record) not in places:
            raise NotRewritable(f"{base}: its windows hold {record} of {name}, its ledger does not")
        shard, ordinal = places[name, record]
        tallies.append(draw_tally(shard, [(epoch, ordinal)]))
    return total(tallies)

"""Where one record becomes several (samples, crops, segments) or several become one (packs, mixtures).

Fan-out: children name their parent and carry a verdict; the children that count are those an adaptive stop
reached in sample order, and they number 0, 1, 2, ... without a gap. Fan-in: a table of members says which
stretch of which record went into which pack; the stretches of a record tile it exactly. Both tables are ledgers
of the version: they enter its content digest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import pyarrow as pa

from gristmill.lake.accounts.balance import BalanceError, Tally
from gristmill.lake.accounts.identity import record_id

VERDICTS = ("accepted", "rejected", "undecided")

FAMILIES = "samples"
"""Kind of the ledger of children: rows of SAMPLES, sorted by id, so that the children of a parent stand together."""
SAMPLES = pa.schema(
    [
        ("id", pa.string()),  # of the child
        ("parent_id", pa.string()),
        ("sample", pa.int32()),  # 0, 1, 2, ... within the parent
        ("verdict", pa.string()),  # accepted | rejected | undecided
        ("reason", pa.string()),  # null for accepted
        ("value", pa.string()),  # what was compared, redacted
        ("verifier", pa.string()),  # name@version of who judged
        ("attempt", pa.int32()),  # how often a verdict was tried for
        ("engine", pa.string()),  # what drew it
        ("tokens", pa.int32()),  # of the answer; null: the engine does not say
    ],
    metadata={"gristmill.format": "1"},
)
MEMBER = "member"
"""The column of MEMBERS with the id of a record."""
MEMBERS = pa.schema(
    [
        ("pack", pa.string()),
        ("position", pa.int32()),  # order within the pack
        ("source", pa.string()),  # the version that the record is of
        (MEMBER, pa.string()),  # id of the record
        ("epoch", pa.int32()),  # how often it was drawn before
        ("start", pa.int64()),  # the stretch of it that is here, in its own units (tokens)
        ("length", pa.int64()),
    ],
    metadata={"gristmill.format": "1"},
)


def child_id(parent_id: str, sample: int) -> str:
    """The id of a child: 32 hex characters that share the parent's first half, so a prefix scan finds the family."""
    return parent_id[:16] + record_id(url=None, source_key="child", own=f"{parent_id}/{sample}".encode())[16:]


def samples_asked(counts: Mapping[str, int]) -> Tally:
    """The tally of samples 0 to n - 1 of each parent (id -> n): of what was asked for, beside the verdicts on it. It is
    an Outcome's `children_in` where `sample_tallies` are its `children`."""
    return Tally.of(f"{parent}/{n}".encode() for parent, count in counts.items() for n in range(count))


def sample_tallies(samples: pa.Table) -> dict[str, Tally]:
    """The tally of each verdict, for an Outcome's `children`. `samples`: SAMPLES, at least parent_id, sample, verdict.

    Raises BalanceError for a gap, a double or an unknown verdict.
    """
    seen: dict[str, list[int]] = defaultdict(list)
    keys: dict[str, list[bytes]] = {verdict: [] for verdict in VERDICTS}
    for row in samples.select(["parent_id", "sample", "verdict"]).to_pylist():
        seen[row["parent_id"]].append(row["sample"])
        if row["verdict"] not in keys:
            raise BalanceError(f"samples: verdict {row['verdict']!r}; allowed: {', '.join(VERDICTS)}")
        keys[row["verdict"]].append(f"{row['parent_id']}/{row['sample']}".encode())
    # A gap would hide a sample that an adaptive stop reached: its verdict would be missing and nothing would show it.
    for parent, numbers in seen.items():
        if sorted(numbers) != list(range(len(numbers))):
            raise BalanceError(f"samples of {parent}: numbered {sorted(numbers)}, not 0 to {len(numbers) - 1}")
    return {verdict: Tally.of(rows) for verdict, rows in keys.items()}


def draw_tally(shard: str, draws: Iterable[tuple[int, int]]) -> Tally:
    """The tally of draws (epoch, row) from a shard (its digest): a record that is drawn in n epochs has n children."""
    return Tally.of(f"{shard}/{row}/{epoch}".encode() for epoch, row in draws)


Draw = tuple[str, str, int]
"""One drawing of a record: source, id, epoch."""


def check_members(members: pa.Table, lengths: Mapping[Draw, int]) -> None:
    """Raises BalanceError unless the stretches in `members` tile every draw of `lengths` (-> units) exactly."""
    stretches: dict[Draw, list[tuple[int, int]]] = defaultdict(list)
    columns = (members[name].to_pylist() for name in ("source", "member", "epoch", "start", "length"))
    for source, member, epoch, start, length in zip(*columns, strict=True):
        stretches[source, member, epoch].append((start, length))
    unknown = stretches.keys() - lengths.keys()
    if unknown:
        raise BalanceError(f"packs hold {len(unknown)} records that never came in, e.g. {_name(min(unknown))}")
    # Laid end to end by their start, the stretches of a record have to meet: a gap was lost, an overlap is there twice.
    for draw, units in lengths.items():
        at = 0
        for start, length in sorted(stretches[draw]):
            if start != at or length <= 0:
                what = "is packed twice" if start < at else "is missing from every pack"
                raise BalanceError(f"record {_name(draw)}: units {min(start, at)} to {max(start, at)}: a part {what}")
            at += length
        if at != units:
            raise BalanceError(f"record {_name(draw)}: {at} of {units} units are packed")


def _name(draw: Draw) -> str:
    source, member, epoch = draw
    return f"{member} of {source}, epoch {epoch}"

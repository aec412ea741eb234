"""A ledger beside the truth about its records: recall and precision of each fate, and of each kind of reason.

The truth (`truth.jsonl`, synth/crawl/truth.py) says of copies which one is the original; which one survives is the
pipeline's choice. So a family of copies is marked as a whole: what counts is how many of it are kept and dropped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

COPIES = "copies"
_GROUPS = {
    "exact": COPIES,
    "minhash": COPIES,
    "http": "http_status",
    "content_type": "not_html",
}
"""What the truth calls a reason, and a stage of the pipeline -> the group that it is counted in."""
_NOT_ASKED = "decontaminate"
"""A reason of a stage that the pipeline has not: what it alone would drop is to be kept."""
Place = tuple[str, int]
"""(file, as the truth names it, number of a record in it)."""


class Mark(NamedTuple):
    """Records of a `group`: how many the truth says, the ledger says, and both say."""

    group: str
    expected: int
    actual: int
    both: int

    @property
    def recall(self) -> float:
        """The share of what there is that was found; 1 of nothing."""
        return self.both / self.expected if self.expected else 1.0

    @property
    def precision(self) -> float:
        """The share of what was found that is right; 1 of nothing."""
        return self.both / self.actual if self.actual else 1.0


def marks(truth: Iterable[Mapping[str, Any]], ledger: Mapping[Place, Mapping[str, Any]]) -> list[Mark]:
    """The most frequent group first. Left out are records whose number nobody knows, as in a damaged file, that are no
    page, or that are not in the ledger; and families of which one hangs on a threshold."""
    expected: dict[Any, Counter[str]] = defaultdict(Counter)
    actual: dict[Any, Counter[str]] = defaultdict(Counter)
    open_families = set()
    for row in truth:
        place = row["file"], row["ordinal"]
        if row["expected"] == "other" or place not in ledger:
            continue
        family = row["family"] or place
        if row["expected"] == "either":
            open_families.add(family)
        group = found_group(ledger[place])
        expected[family][expected_group(row, group)] += 1
        actual[family][group] += 1
    families = expected.keys() - open_families
    of_truth = sum((expected[family] for family in families), Counter[str]())
    of_ledger = sum((actual[family] for family in families), Counter[str]())
    of_both = sum((expected[family] & actual[family] for family in families), Counter[str]())
    groups = sorted(of_truth | of_ledger, key=lambda group: -of_truth[group])
    return [Mark(group, of_truth[group], of_ledger[group], of_both[group]) for group in groups]


def expected_group(row: Mapping[str, Any], actual: str) -> str:
    """kept, quarantined, or why the truth says that a record is dropped: of several reasons any one is right, also the
    one that is `actual`, of the ledger."""
    reasons = [reason.partition(".")[0] for reason in row["reasons"]]
    if row["expected"] != "dropped":
        return str(row["expected"])
    if reasons == [_NOT_ASKED]:
        return "kept"
    groups = [_GROUPS.get(reason, reason) for reason in reasons]
    return actual if actual in groups else groups[0]


def found_group(row: Mapping[str, Any]) -> str:
    """kept, quarantined, or why a row of a ledger says that a record was dropped."""
    if row["fate"] != "dropped":
        return str(row["fate"])
    stage, _, reason = row["reason"].partition(".")
    return reason if stage == "read" else _GROUPS.get(stage, stage)

"""What a selection does to groups: the share of each that was proposed, accepted and selected, with intervals.

Rejection sampling keeps what a model can do already, so a group that it does worse at grows thinner with every round,
and nothing in the accepted data shows it. Here each group's rate is compared with that of all others together.
The samples of a problem are no independent draws, and of a hard one more are drawn: so intervals take the problem as
the unit. Source: Newcombe 1998, method 10, for the interval of a difference of two shares; `synth.intervals`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

from gristmill.synth.intervals import clustered, wilson


@dataclass(frozen=True)
class Counts:
    """Of a problem: samples that were proposed, that were accepted, and rows that were selected."""

    proposed: int
    accepted: int
    selected: int


_COUNTED = ("proposed", "accepted", "selected")


@dataclass(frozen=True)
class Thinning:
    """A group. Shares are of all samples in the dimension, each with its interval (`low`, `high`); `kept`: the share of
    the group's problems of which something was selected. `thinned`: it is lower than that of the others together,
    beyond what chance explains; `difference` and its interval say by how much."""

    dimension: str
    group: str
    problems: int
    proposed: int
    accepted: int
    selected: int
    share_proposed: tuple[float, float, float]
    share_accepted: tuple[float, float, float]
    share_selected: tuple[float, float, float]
    kept: tuple[float, float, float]
    difference: tuple[float, float, float]
    thinned: bool


def share(hits: int, of: int) -> tuple[float, float, float]:
    """A share and the ends of its interval, to four decimals; of nothing, 0 with the widest one."""
    if not of:
        return 0.0, 0.0, 1.0
    low, high = wilson(hits, of)
    return round(hits / of, 4), round(low, 4), round(high, 4)


def difference(a: tuple[int, int], b: tuple[int, int]) -> tuple[float, float, float]:
    """The share of `a` (hits, of) less that of `b`, and the ends of its interval."""
    (p, low_p, high_p), (q, low_q, high_q) = share(*a), share(*b)
    low = (p - q) - sqrt((p - low_p) ** 2 + (high_q - q) ** 2)
    high = (p - q) + sqrt((high_p - p) ** 2 + (q - low_q) ** 2)
    return round(p - q, 4), round(low, 4), round(high, 4)


def thinning(problems: Iterable[tuple[Mapping[str, str], Counts]]) -> list[Thinning]:
    """A row for each group of each dimension, in order. `problems`: the groups of each, and its counts."""
    by_dimension: dict[str, dict[str, list[Counts]]] = defaultdict(lambda: defaultdict(list))
    for groups, counts in problems:
        for dimension, group in groups.items():
            by_dimension[dimension][group].append(counts)
    rows: list[Thinning] = []
    for dimension, of_groups in sorted(by_dimension.items()):
        total = Counter[str]()
        sums = {group: _sums(members) for group, members in of_groups.items()}
        for counted in sums.values():
            total.update(counted)
        rows += [_row(dimension, group, counted, total) for group, counted in sorted(sums.items())]
    return rows


def _sums(members: Iterable[Counts]) -> Counter[str]:
    sums = Counter[str](problems=0, kept=0, proposed=0, accepted=0, selected=0)
    for counts in members:
        sums.update(
            problems=1,
            kept=int(counts.selected > 0),
            proposed=counts.proposed,
            accepted=counts.accepted,
            selected=counts.selected,
        )
        sums.update({f"{name}_squared": getattr(counts, name) ** 2 for name in _COUNTED})
    return sums


def _share_of(name: str, counted: Counter[str], total: Counter[str]) -> tuple[float, float, float]:
    """The share of a group in all that is counted so, with its interval."""
    if not total[name]:
        return 0.0, 0.0, 1.0
    squares = f"{name}_squared"
    low, high = clustered(counted[name], counted[squares], total[name], total[squares])
    return round(counted[name] / total[name], 4), round(low, 4), round(high, 4)


def _row(dimension: str, group: str, counted: Counter[str], total: Counter[str]) -> Thinning:
    own = (counted["kept"], counted["problems"])
    others = (total["kept"] - counted["kept"], total["problems"] - counted["problems"])
    apart = difference(own, others) if others[1] else (0.0, 0.0, 0.0)
    return Thinning(
        dimension=dimension,
        group=group,
        problems=counted["problems"],
        proposed=counted["proposed"],
        accepted=counted["accepted"],
        selected=counted["selected"],
        share_proposed=_share_of("proposed", counted, total),
        share_accepted=_share_of("accepted", counted, total),
        share_selected=_share_of("selected", counted, total),
        kept=share(*own),
        difference=apart,
        thinned=apart[2] < 0,
    )

"""How far two versions are apart: in shares of languages and lengths, and in the words of their texts.

Both measures are symmetric, need no model, and are 0 for equal shares; chance alone gives more than 0, the more the
fewer records there are (pipelines/gates/held.py says what that comes to).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

RARE = 0.01
"""Languages with less than this share on both sides are counted together: each would be noise."""
COMMON = 0.02
"""A word tells about topics if it is in this share of the sampled records of both sides together, or more."""
SHOWN = 4
"""Words and bins that a reason names."""
_WORD = re.compile(r"[^\W\d_]{4,}")
_MOST_CHARACTERS = 20_000
"""Of a text that are looked at: a book is about what its first chapter is about."""


def stability_index(now: Mapping[str, int], before: Mapping[str, int]) -> float:
    """The population stability index of two counts over the same bins, 0 where they are alike in shares. Half a record
    is added to every bin, so that one that is empty on a side has a logarithm."""
    bins = now.keys() | before.keys()
    total_now, total_before = (sum(counts.values()) + len(bins) / 2 for counts in (now, before))
    index = 0.0
    for key in sorted(bins):
        p, q = (now.get(key, 0) + 0.5) / total_now, (before.get(key, 0) + 0.5) / total_before
        index += (p - q) * math.log(p / q)
    return index


def topic_drift(now: Sequence[str], before: Sequence[str]) -> tuple[float, list[str]]:
    """(divergence of the words of two samples of texts, the words that add most to it).

    Each record counts a word once, so that a long one does not speak for all; words of at least four letters, because
    shorter ones are mostly grammar. Scripts without spaces give phrases, which are rare: there it says little.
    """
    counts_now, counts_before = _word_counts(now), _word_counts(before)
    least = COMMON * (len(now) + len(before))
    words = [
        word for word in counts_now.keys() | counts_before.keys() if counts_now[word] + counts_before[word] >= least
    ]
    total_now, total_before = (sum(counts[word] for word in words) for counts in (counts_now, counts_before))
    if not total_now or not total_before:
        return (1.0 if total_now != total_before else 0.0), []
    parts = {
        word: _divergence(counts_now[word] / total_now, counts_before[word] / total_before) for word in sorted(words)
    }
    most = sorted(parts, key=lambda word: (-parts[word], word))[:SHOWN]
    return math.fsum(parts.values()), most


def _word_counts(texts: Iterable[str]) -> Counter[str]:
    """Word -> texts that have it."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(_WORD.findall(text[:_MOST_CHARACTERS].casefold())))
    return counts


def _divergence(p: float, q: float) -> float:
    """What one word adds to the Jensen-Shannon divergence, in bits."""
    middle = (p + q) / 2
    return sum(share * math.log2(share / middle) / 2 for share in (p, q) if share)


def common(now: Mapping[str, int], before: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Both counts with what is rare on both sides together as `others`."""
    totals = [max(1, sum(counts.values())) for counts in (now, before)]
    shares = {
        key: max(now.get(key, 0) / totals[0], before.get(key, 0) / totals[1]) for key in now.keys() | before.keys()
    }
    grouped = []
    for counts in (now, before):
        sums: Counter[str] = Counter()
        for key, n in counts.items():
            sums[key if shares[key] >= RARE else "others"] += n
        grouped.append(dict(sums))
    return grouped[0], grouped[1]


def changes(now: Mapping[str, int], before: Mapping[str, int], called: str) -> str:
    """The bins whose shares differ most, in words."""
    shares = {
        key: (before.get(key, 0) / sum(before.values()), now.get(key, 0) / sum(now.values()))
        for key in now.keys() | before.keys()
    }
    most = sorted(shares, key=lambda key: (-abs(shares[key][1] - shares[key][0]), key))[:SHOWN]
    return ", ".join(f"{called.format(key)} {shares[key][0]:.0%} -> {shares[key][1]:.0%}" for key in most)

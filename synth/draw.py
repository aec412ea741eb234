"""Reproducible choice: the only source of variety in the demo crawl. Notable choices:

- a draw is seeded by the sha256 of its key, so one page's content never depends on how many others were made;
- only `random.Random(int).random()` is used, the one method whose sequence Python promises to keep;
- no hash(), no set order, no clock: the same key gives the same choices on every machine.
"""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Choices derived from a key (any values whose `str` is stable)."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
        self._random = random.Random(int.from_bytes(digest, "big")).random

    def fraction(self) -> float:
        """A float in [0, 1)."""
        return self._random()

    def below(self, n: int) -> int:
        """An int in [0, n)."""
        return int(self._random() * n)

    def between(self, low: int, high: int) -> int:
        """An int in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return self._random() < p

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a drawn order (Fisher-Yates)."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out


def uuid_of(*key: object) -> str:
    """A UUID-shaped string that depends on nothing but the key."""
    h = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).hexdigest()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:32]}"

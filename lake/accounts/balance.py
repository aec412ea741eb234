"""Nothing is lost: tallies that must agree, however the records were counted.

A tally is a count and the sum mod 2^128 of a hash of each record's key. The two sides of a balance come from
different code (the boundary scan of a container; the records as parsed), so a reader that loses one record and
doubles another is caught although the counts agree. Sums do not depend on order, so tallies of parts add up to
the tally of the whole: at every receipt, between stages and at commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_MOD = 1 << 128
"""Hashes are added, not xored: of a record that is there twice an xor would leave nothing, and a sum shows both."""


class BalanceError(Exception):
    """Records were lost, doubled or invented. The version that would hold them is refused."""


@dataclass(frozen=True)
class Tally:
    """`count` keys whose hashes sum to `sum` mod 2^128."""

    count: int = 0
    sum: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.count + other.count, (self.sum + other.sum) % _MOD)

    def __sub__(self, other: Tally) -> Tally:
        """What is left of keys when others, which are among them, are taken away."""
        return Tally(self.count - other.count, (self.sum - other.sum) % _MOD)

    def to_json(self) -> list[int | str]:
        """[count, sum as 32 hex characters]: JSON's numbers do not hold 128 bits."""
        return [self.count, f"{self.sum:032x}"]

    @classmethod
    def from_json(cls, data: Iterable[int | str]) -> Tally:
        """What `to_json` gave. Raises ValueError for anything else."""
        count, total = data
        return cls(int(count), int(str(total), 16))

    @classmethod
    def of(cls, keys: Iterable[bytes]) -> Tally:
        """The tally of raw keys."""
        count = total = 0
        for key in keys:
            total += int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little")
            count += 1
        return cls(count, total % _MOD)

    @classmethod
    def of_records(cls, inputs: Iterable[str], ordinals: Iterable[int]) -> Tally:
        """The tally of records by where they stand: `inputs` are input digests (hex), `ordinals` positions in them.

        That of their `record_key`s; a key begins with its input, whose hash is begun once: twice as fast.
        """
        of_input: dict[str, Any] = {}  # the hash that begins every key of an input
        count = total = 0
        for digest, n in zip(inputs, ordinals, strict=True):
            if digest not in of_input:
                of_input[digest] = hashlib.blake2b(digest.encode(), digest_size=16)
            key = of_input[digest].copy()
            key.update(n.to_bytes(8, "little"))
            total += int.from_bytes(key.digest(), "little")
            count += 1
        return cls(count, total % _MOD)


def record_key(input_digest: str, ordinal: int) -> bytes:
    """The key of a record in its container: what the boundary scan can know before anything is parsed."""
    return input_digest.encode() + ordinal.to_bytes(8, "little")


def total(tallies: Iterable[Tally]) -> Tally:
    """The tally of all records that these tallies are of; of none: zero."""
    result = Tally()
    for tally in tallies:
        result += tally
    return result


def check_balance(
    where: str, received: Tally, fates: Mapping[str, Tally], *, what: str = "records", end: str = "fate"
) -> None:
    """Raises BalanceError unless `received` equals the sum over `fates`. `what` they are and what each must have at the
    `end`, for messages: records a fate, children a verdict."""
    went_out = total(fates.values())
    if received == went_out:
        return
    parts = " + ".join(f"{name} {tally.count:,}" for name, tally in fates.items()) or "none"
    if received.count != went_out.count:
        problem = f"{received.count:,} {what} went in but {went_out.count:,} have a {end} ({parts})"
    else:
        problem = (
            f"{received.count:,} {what} went in and as many have a {end} ({parts}), but they are not the same {what}:"
            " some were lost and others counted twice"
        )
    raise BalanceError(f"{where}: {problem}. Nothing was committed; this is a defect of the stage, please report it.")

"""Thrift's compact protocol, as much of it as the metadata of Parquet need: structs walked field by field.

Nothing is built that is not asked for, and what is not asked for is passed over without recursion deeper than DEPTH, so
that hostile metadata cost time in proportion to their bytes and no memory (Apache Thrift, thrift-compact-protocol.md).
"""

from __future__ import annotations

from collections.abc import Iterator

DEPTH = 32
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, STRUCT = range(1, 13)
INTEGERS = (_I16, _I32, _I64)


class ThriftError(ValueError):
    """The bytes are no struct of the compact protocol, or are not all there."""


class Thrift:
    """A position in bytes. What `fields` and `items` hand out is to be read or skipped before the next is asked for."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """(number, type) of each field of the struct at the position, which stands before its value."""
        number = 0
        while True:
            head = self._byte()
            if head == 0:
                return
            delta = head >> 4
            number = number + delta if delta else self.integer()
            yield number, head & 15

    def items(self, most: int | None = None) -> Iterator[int]:
        """The type of each item of the list at the position, which stands before the item. `most`: how many it may
        have, whatever bytes there are."""
        head = self._byte()
        size = head >> 4
        if size == 15:
            size = self._varint()
        if size > len(self.data) - self.at:  # an item takes a byte or more
            raise ThriftError(f"a list of {size} items in {len(self.data)} bytes")
        if most is not None and size > most:
            raise ThriftError(f"a list of {size} items, more than {most}")
        for _ in range(size):
            yield head & 15

    def integer(self) -> int:
        """A signed whole number of 16 to 64 bits (zigzag)."""
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def binary(self) -> bytes:
        """A string."""
        size = self._varint()
        first = self.at
        self._forward(size)
        return self.data[first : self.at]

    def skip(self, kind: int, depth: int = 0) -> None:
        """Over a value of this type. (A boolean as a field stands in the field's type; in a list it is a byte.)"""
        if depth > DEPTH:
            raise ThriftError(f"structs in structs, more than {DEPTH} deep")
        if kind in INTEGERS:
            self._varint()
        elif kind == _BINARY:
            self._forward(self._varint())
        elif kind == _BYTE:
            self._forward(1)
        elif kind == _DOUBLE:
            self._forward(8)
        elif kind in (_LIST, _SET):
            for item in self.items():
                self.skip(_BYTE if item in (_TRUE, _FALSE) else item, depth + 1)
        elif kind == STRUCT:
            for _, field in self.fields():
                self.skip(field, depth + 1)
        elif kind not in (_TRUE, _FALSE):  # maps are in no metadata of Parquet
            raise ThriftError(f"a value of type {kind}")

    def _byte(self) -> int:
        self._forward(1)
        return self.data[self.at - 1]

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ThriftError("a number of more than 64 bits")

    def _forward(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise ThriftError("it breaks off")

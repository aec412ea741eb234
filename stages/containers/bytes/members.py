"""Members: all members of a file in order, and where damage begins and ends.

A member is the unit of trust: what it inflated to is good once its end (and checksum) was reached, or when the file
simply stops in it; a member that fails is bad from its first byte, as nobody can say where the flipped bit was.
After damage the next member is searched in the compressed bytes, from the byte behind the start of the failed one
(inflating past a cut eats into its successors), within the last RETAIN bytes. Whatever is read a second time for that
is counted, and a file that wants more of it than REREAD times its size is hostile: the rest of it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gristmill.stages.containers.bytes.compressed import GZIP_MAGIC, ZSTD_MAGIC, Compression, is_skippable
from gristmill.stages.containers.bytes.raw import FEED, MemberError, Raw, gzip_member
from gristmill.stages.containers.bytes.zstd import Dictionary, zstd_dictionary, zstd_frame

RETAIN = 8 << 20
REREAD = 4
REREAD_ANYWAY = 128 << 10  # bytes: a small file may be searched whole
TRIAL = 64  # bytes: what looking at a place counts for, however soon it shows that no member starts there
FIRST = 16  # bytes: the first piece of a member is never shorter, unless the member is


class Piece(NamedTuple):
    """Decompressed bytes; `begins` is the compressed offset of the member of which these are the first bytes."""

    data: bytes
    begins: int | None


class Damage(NamedTuple):
    """Compressed bytes [first, last) are lost; `corrupt`: what this member yielded before is not to be trusted."""

    first: int
    last: int
    message: str
    corrupt: bool


class Members:
    """The members of a file, one after the other; `plausible` says of the first bytes of one whether a search
    after damage may stop there."""

    def __init__(self, raw: Raw, how: Compression, plausible: Callable[[bytes], bool]) -> None:
        self._raw, self._how, self._plausible = raw, how, plausible
        self._dictionary: Dictionary | None = zstd_dictionary(raw) if how == "zstd" else None
        self._magic = GZIP_MAGIC if how == "gzip" else ZSTD_MAGIC
        self._reread, self._gave_up = 0, False  # bytes that were read again in searches; whether they are too many

    def __iter__(self) -> Iterator[Piece | Damage]:
        raw = self._raw
        if self._how == "none":
            begins: int | None = raw.pos
            while data := raw.take(8 * FEED):
                yield Piece(data, begins)
                begins = None
            return
        while head := raw.peek(8):
            first = raw.pos
            if self._how == "zstd" and is_skippable(head) and self._skip(head):
                continue
            if head.startswith(self._magic):
                try:
                    yield from first_pieces(self._member(raw), first)
                    continue
                except MemberError as error:
                    bad = error
                # A member that the end of the file cuts off has all the bytes that are left, and the magic occurs in
                # them by chance: there a member counts if it is good to its end. Behind a corrupt one a start will do.
                self._search(first + 1, whole=not bad.corrupt)
                yield Damage(first, raw.pos, f"{bad}{self._end_of_search()}", bad.corrupt)
            else:
                if self._search(first, whole=False):
                    blank = False
                else:
                    raw.back_to(first)
                    blank = self._only_zeros()
                if not blank:  # zero padding behind the last member is what tapes and block devices leave
                    message = f"no {self._how} member starts at {first}{self._end_of_search()}"
                    yield Damage(first, raw.pos, message, False)

    def _skip(self, head: bytes) -> bool:
        """Over a skippable frame; False when it is longer than the file."""
        first, size = self._raw.pos, 8 + int.from_bytes(head[4:8], "little")
        try:
            self._raw.skip_to(first + size)
        except EOFError:
            self._raw.back_to(first)
            return False
        return True

    def _only_zeros(self) -> bool:
        zeros = True
        while data := self._raw.take(FEED):
            zeros = zeros and not data.strip(b"\0")
        return zeros

    def _member(self, raw: Raw) -> Iterator[bytes]:
        return gzip_member(raw) if self._how == "gzip" else zstd_frame(raw, self._dictionary)

    def _search(self, offset: int, *, whole: bool) -> bool:
        """Move to the next member at or behind `offset` that inflates plausibly; else to the end of the file.

        `whole`: the member must be good to its end: the file ended inside another, so most likely there is none.
        """
        raw = self._raw
        self._reread += raw.pos - max(offset, raw.base)  # what the failed member was read for is read again from here
        raw.back_to(offset)
        while not self._exhausted() and raw.find(self._magic):
            if self._starts_here(whole):
                return True
            raw.advance(1)
        while raw.take(FEED):
            pass
        return False

    def _exhausted(self) -> bool:
        self._gave_up = self._gave_up or self._reread > REREAD * self._raw.pos + REREAD_ANYWAY
        return self._gave_up

    def _end_of_search(self) -> str:
        return f"; no more members are searched: {self._reread} bytes were read again for that" if self._gave_up else ""

    def _starts_here(self, whole: bool) -> bool:
        raw = self._raw
        if self._how == "gzip" and raw.peek(4)[3:] > b"\x1f":  # reserved flags (RFC 1952, 2.3.1)
            return False
        ahead = raw.ahead(RETAIN if whole else FEED)
        start, size = b"", 0
        try:
            for piece in self._member(ahead):
                start, size = start[:FIRST] + piece[:FIRST], size + len(piece)
        except MemberError as error:
            if error.corrupt or whole:
                return False
        finally:
            self._reread += TRIAL + ahead.pos - raw.pos
        return size > 0 and self._plausible(start)


def first_pieces(member: Iterator[bytes], begins: int) -> Iterator[Piece]:
    """Pieces of a member, the first one at least FIRST bytes long if the member is."""
    held, started = b"", False
    try:
        for data in member:
            held += data
            if started or len(held) >= FIRST:
                yield Piece(held, None if started else begins)
                held, started = b"", True
    except MemberError:
        if held:
            yield Piece(held, begins)
        raise
    if held:
        yield Piece(held, begins)

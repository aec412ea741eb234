"""Real archives against warcio 1.8.1, record by record: what it made of them is kept here as digests.

`python tests/stages/test_containers_warcio.py FOLDER` prints the table anew, with warcio in the Python that runs it.
Compared are type, record id, address, date, status, media type and decoded body of every record but requests and
revisits: of those gristmill keeps the block and drops the record by its type, where warcio parses a head. Where the
two differ, or warcio cannot read on, DIFFERENT says how, and which of them is right.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PARSED_HEADS = ("request", "revisit")
SAME = {  # file: (records of both, digest of those that are compared)
    "aut__example.warc.gz": (822, "0c9ab6d639fdb465"),
    "aut__issue-493.warc": (32, "6bb65f7ebf94b24a"),
    "chatnoir-resiliparse__warcfile.warc.gz": (50, "0d60d9a8d26f73c3"),
    "dolma__sample-0000.warc.gz": (48, "104d289554422b17"),
    "jwarc__cc.warc.gz": (1, "2957e6c8273577e9"),
    "pages.warc.gz": (299, "38989c74504a87e7"),
    "warcio__example-iana.org-chunked.warc": (3, "79aed46466441af9"),
    "warcio__example.warc.gz": (6, "dd179af6f1654624"),
    "webarchive-commons__IAH-urls-wget.warc.gz": (36, "175d25ba04b96cc7"),
    "whirlwind-python__whirlwind.warc.gz": (4, "89cc1a2890e6e181"),
    "whirlwind-python__whirlwind.warc.wat.gz": (2, "548429c7d76fbb89"),
    "whirlwind-python__whirlwind.warc.wet.gz": (2, "8a7ddd7719165fb4"),
}

DIFFERENT = {
    "aut__badexample.arc.gz": "one gzip member of all records: warcio gives up behind the first, gristmill reads all 6;"
    " of 3 the header or the length is damaged",
    "chatnoir-resiliparse__clipped.warc.gz": "the member is cut off: warcio gives the part that is there as a record,"
    " gristmill quarantines it (75,207 of 88,275 bytes)",
    "warcio__bad.arc": "lengths -1 and abc: warcio gives records without a body, gristmill quarantines them; the record"
    " of length 1 both have",
    "warcio__example-bad-non-chunked.warc.gz": "one gzip member of all records: warcio gives up behind the first,"
    " gristmill reads all 6",
    "warcio__example-trunc.warc": "one length is 2 bytes short: warcio warns and goes on, gristmill quarantines it",
    "warcio__example-wrong-chunks.warc.gz": "warcio takes the page for the next record and stops; gristmill reads it,"
    " and says that it is a byte shorter than its Content-Length",
}


def digest_of(lines: Iterable[str]) -> str:
    """Of records in order."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def by_gristmill(path: Path) -> Iterator[tuple[str, str]]:
    """Type and line of each record."""
    from warc_files import file_opener

    from gristmill.stages.containers import ReadConfig, Record, detect, read, scan

    kind = detect(path.name, path.read_bytes()[:4096])
    with path.open("rb") as stream:
        spans = scan(stream, kind).spans
    for item in read(file_opener(path), spans, kind, ReadConfig()):
        assert isinstance(item, Record), item
        body = item.payload if item.text is None else item.text.encode()
        about = (item.warc_id, item.url, item.date, item.http_status, item.content_type)
        yield item.record_type, _line(item.record_type, about, body)


def by_warcio(path: Path) -> Iterator[tuple[str, str]]:
    """The same of warcio."""
    from warcio.archiveiterator import ArchiveIterator

    with path.open("rb") as stream:
        for record in ArchiveIterator(stream):
            body, own, head = record.content_stream().read(), record.rec_headers, record.http_headers
            media = (head.get_header("content-type") if head else record.content_type) or ""
            names = ("WARC-Record-ID", "WARC-Target-URI", "WARC-Date")
            values = [(own.get_header(name) or "").strip("<>") or None for name in names]
            status = int(head.get_statuscode()) if head and head.get_statuscode().isdecimal() else None
            yield record.rec_type, _line(record.rec_type, (*values, status, media.split(";")[0].lower().strip()), body)


def _line(kind: str, about: tuple[object, ...], body: bytes) -> str:
    return "\t".join([kind, *(str(value or "") for value in about), hashlib.sha1(body).hexdigest()])


def table_row(records: Iterable[tuple[str, str]]) -> tuple[int, str]:
    """(how many there are, digest of those that are compared)."""
    lines = list(records)
    return len(lines), digest_of(line for kind, line in lines if kind not in PARSED_HEADS)


@pytest.mark.parametrize("name", SAME)
def test_every_record_is_that_of_warcio(name: str, shared_data: Path) -> None:
    folder = "2_pages" if name == "pages.warc.gz" else "1_crawl/real"
    assert table_row(by_gristmill(shared_data / folder / name)) == SAME[name]


def test_every_file_is_compared_or_its_difference_is_said(shared_data: Path) -> None:
    files = {path.name for path in (shared_data / "1_crawl" / "real").iterdir()}
    assert files - SAME.keys() - DIFFERENT.keys() == {
        "warcio__example.arc.gz",  # an ARC: warcio gives its dates as digits; the body is the same
        "webarchive-commons__double-single-inflate-error.gz",  # a listing of a folder: neither reads it
    }


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).rglob("*.warc*")):
        try:
            print(f'    "{path.name}": {table_row(by_warcio(path))},')
        except Exception as error:  # whatever it raises on a damaged file is for the person who reads the table
            print(f"    # {path.name}: {type(error).__name__}")

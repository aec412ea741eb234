"""Rules over a document's address: hosts that are an IP number, hosts of block lists, words of adult sites and spam.

A host is blocked with all below it: `example.org` blocks `www.example.org`. Words are runs of letters and digits of the
host and of the path; the query is not looked at, since it says what somebody looked for. A document without an address,
or with one that has no host, is kept.
Source of the idea, not of the lists: Penedo et al. 2023, arXiv 2306.01116, G.1 (RefinedWeb: block lists, then a score
of words in the address); datatrove's `URLFilter`, which asks for two soft words too.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter, above, first_reason
from gristmill.filters.text.docs import Docs

# Words that are the name of an adult site's kind wherever they stand, so parts of a host count too.
HOST_PARTS = ("porn", "xxx", "hentai", "milf", "camgirl", "sexcam", "xvideo", "xhamster")
WORDS = ("porn", "porno", "pornstar", "xxx", "hentai", "milf", "milfs", "blowjob", "cumshot", "camgirls", "gangbang")
# Words that address harmless pages too (sex education, a casino's architecture): two different ones are asked for.
SOFT_WORDS = (
    *("sex", "sexy", "nude", "naked", "erotic", "erotica", "escort", "escorts", "adult", "teen", "teens", "webcam"),
    *("fetish", "amateur", "lesbian", "gay", "hot", "casino", "poker", "slots", "jackpot", "bet", "betting", "viagra"),
    *("cialis", "pharmacy", "pills", "cheap", "replica", "payday", "loan", "loans", "torrent", "warez", "crack"),
    *("keygen", "serial", "download", "free"),
)
_WORD = re.compile(r"[^\W_]+")
_MOST_CHARS = 4096
"""Of an address: what a browser would send is shorter, and what is longer is no reason to read on."""

_SCHEMA = pa.schema(
    [
        pa.field("host_is_ip", pa.bool_()),
        pa.field("blocked_host", pa.string()),  # the line of a block list
        pa.field("word", pa.string()),  # the first that alone is enough
        pa.field("n_soft_words", pa.int64()),  # different ones
    ]
)


@dataclass(frozen=True)
class UrlRules(Filter[Docs]):
    """`block_lists`: text files, a host a line, as `a.org`, `.a.org` or `*.a.org` (`#` begins a comment); they count by
    content. The words are measured with: other words are another measure. `max_soft_words`: more different ones than
    this drop."""

    block_lists: tuple[str, ...] = ()
    ip_hosts: bool = False
    host_parts: tuple[str, ...] = HOST_PARTS
    words: tuple[str, ...] = WORDS
    soft_words: tuple[str, ...] = SOFT_WORDS
    max_soft_words: int | None = 1

    name: ClassVar[str] = "url"
    VERSION: ClassVar[int] = 1
    measured_with: ClassVar[frozenset[str]] = frozenset({"block_lists", "host_parts", "words", "soft_words"})
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "ip_host": "host_is_ip",
            "blocked_host": "blocked_host",
            "word": "word",
            "soft_words": "n_soft_words",
        }
    )

    def check(self) -> None:
        """Whether the block lists can be read. Raises OSError, and ValueError for a line that is no host."""
        for path in self.block_lists:
            _hosts(path, _digest(path))

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """Of each document's address; nulls where there is none. Raises what `check` raises."""
        blocked = [_hosts(path, _digest(path)) for path in self.block_lists]
        words, soft = frozenset(self.words), frozenset(self.soft_words)
        urls = [None] * len(docs) if docs.urls is None else docs.urls.to_pylist()
        rows = [self._row(url, blocked, words, soft) for url in urls]
        columns = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        return pa.record_batch(arrays, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """An IP number (`ip_hosts: false`), a blocked host, a word, soft words; from measures alone."""
        is_ip = pc.fill_null(measures["host_is_ip"], False).to_numpy(zero_copy_only=False)
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("ip_host", is_ip & (not self.ip_hosts)),
                ("blocked_host", pc.is_valid(measures["blocked_host"]).to_numpy(zero_copy_only=False)),
                ("word", pc.is_valid(measures["word"]).to_numpy(zero_copy_only=False)),
                ("soft_words", above(measures["n_soft_words"], self.max_soft_words)),
            ],
        )

    def config(self) -> dict[str, Any]:
        """The rules and what the block lists hold, wherever they lie."""
        config = super().config()
        del config["block_lists"]
        return config | {"block_lists_sha256": sorted(_digest(path) for path in self.block_lists)}

    def _row(
        self, url: str | None, blocked: Sequence[frozenset[str]], words: frozenset[str], soft: frozenset[str]
    ) -> tuple[bool | None, str | None, str | None, int | None]:
        parts = _parts(url)
        if parts is None:
            return None, None, None, None
        host, path = parts
        looked_up = _in_ascii(host)
        above_it = [looked_up[at:] for at in (0, *(dot.end() for dot in re.finditer(r"\.", looked_up)))]
        line = next((name for name in above_it for hosts in blocked if name in hosts), None)
        spelled = [word.lower() for word in _WORD.findall(f"{host} {path}")]
        hard = next((word for word in spelled if word in words), None)
        hard = hard or next((part for part in self.host_parts if part in host), None)
        return _is_ip(host), line, hard, len(soft.intersection(spelled))


def _parts(url: str | None) -> tuple[str, str] | None:
    """(host, path) of an address, in small letters, unquoted; None without a host."""
    if not url:
        return None
    try:
        split = urlsplit(url[:_MOST_CHARS])
        host = (split.hostname or "").rstrip(".")
    except ValueError:  # brackets that are no IPv6 number
        return None
    return (host, unquote(split.path)) if host else None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _digest(path: str) -> str:
    """Of a block list's bytes: read once a process, as long as the file is not written."""
    about = Path(path).stat()
    return _digest_of(path, (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))


@lru_cache(maxsize=8)
def _digest_of(path: str, stamp: tuple[int, ...]) -> str:
    """`stamp`: what changes with a file, so that another content is read anew."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@lru_cache(maxsize=8)
def _hosts(path: str, digest: str) -> frozenset[str]:
    """The hosts of a block list. `digest`: of its bytes, so that another content is read anew."""
    hosts = set()
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), 1):
        host = line.partition("#")[0].strip().removeprefix("*").lower().strip(".")
        if host and not re.fullmatch(r"[^\s/:@?*|^$=,<>]+", host):
            raise ValueError(f"url.block_lists: line {number} of {path} is {line[:80]!r}; a host is allowed, as a.org")
        if host:
            hosts.add(_in_ascii(host))
    return frozenset(hosts)


def _in_ascii(host: str) -> str:
    """A host as it is looked up: `xn--mller-kva.example` for `müller.example`, since addresses have either."""
    if host.isascii():
        return host
    labels = unicodedata.normalize("NFKC", host).split(".")
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels)

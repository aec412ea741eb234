"""What a page or a row declares of its use: licence, robots directives, reservation of text and data mining.

Sources: fields of rows; HTTP (X-Robots-Tag; TDM-Reservation and TDM-Policy of W3C's TDM Reservation Protocol, 2024;
Link with rel=license, RFC 8288); of HTML the meta elements of the same names, links with rel=license (HTML, 4.6.6.10),
Dublin Core's metas, `license` in JSON-LD of schema.org, and where none of these says anything, links to licences of
Creative Commons. What is declared of images and clips alone is not the page's. It is said as it was found, never
judged here: filters/rights.py does that. Linear in the page.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("license", pa.string()),  # as filters/rights.py reads it: `cc-by-4.0`, `mit`, an address; several by "; "
        ("robots", pa.string()),  # directives, `noindex, ccbot:noarchive`
        ("tdm_reservation", pa.string()),  # "1" reserved, "0" not
        ("tdm_policy", pa.string()),  # address of the terms
    ]
)
_MOST, _MOST_CHARS = 8, 200
"""Of licences that a record declares, and of characters of each."""
_MOST_DIRECTIVES = 32

_START = re.compile(r"<!--|<(meta|link|a|script|style|textarea|title)(?=[\s/>])([^<>]*)>", re.IGNORECASE)
_ENDS = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "textarea", "title")}
_ATTRIBUTE = re.compile(r"([a-zA-Z:-]{1,40})\s{0,32}=\s{0,32}(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_LICENSE_METAS = frozenset(
    ("license", "licence", "dc.rights", "dc.license", "dc.rights.license", "dcterms.license", "dcterms.rights")
)
_AGENTS = frozenset(("slurp", "google-extended", "anthropic-ai", "claude-web", "perplexity-ai", "cohere-ai"))
"""Names of metas that speak to one crawler and do not end in `bot`."""
_WITH_VALUE = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
_DIRECTIVE = re.compile(r"[a-z][a-z_-]{1,40}")
_AGENT = re.compile(r"[a-z][a-z0-9_.-]{1,60}")
_LINK = re.compile(r"<([^<>]{1,2000})>([^<]*)")
_REL_LICENSE = re.compile(r"(?<![\w-])rel\s{0,32}=\s{0,32}\"?[^\";,]{0,200}(?<![\w-])license(?![\w-])", re.IGNORECASE)
_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(licenses|publicdomain)/([a-z][a-z+-]{0,30})(?:/(\d\.\d))?(?:/([a-z]{2}|igo|scotland)(?![\w.]))?",
    re.IGNORECASE,
)
_CC_NAME = re.compile(
    r"(?:cc|creative commons)[ _-]?(0|by(?:[ _-](?:nc|nd|sa)){0,2})(?:[ _-]v?(\d\.\d))?", re.IGNORECASE
)
_SPDX = re.compile(r"[A-Za-z0-9.+-]{1,60}")
_MEDIA = frozenset(("imageobject", "videoobject", "audioobject", "mediaobject", "photograph"))
"""Types of schema.org whose licence is not the page's."""


@dataclass(frozen=True)
class DeclaredFields:
    """The fields of rows (JSON lines, Parquet) that declare something; `metadata.license` is a field of an object."""

    license: str = "license"
    robots: str = "robots"
    tdm_reservation: str = "tdm_reservation"
    tdm_policy: str = "tdm_policy"

    def __post_init__(self) -> None:
        names = [field for _, field in self.pairs]
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"extract.rights: field names {names}: they must be non-empty and differ from one another")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(name of what is declared, field)."""
        return (
            ("license", self.license),
            ("robots", self.robots),
            ("tdm-reservation", self.tdm_reservation),
            ("tdm-policy", self.tdm_policy),
        )


class Declared(NamedTuple):
    """A row of SCHEMA; None: nothing is said."""

    license: str | None = None
    robots: str | None = None
    tdm_reservation: str | None = None
    tdm_policy: str | None = None


def declared_of(pairs: Iterable[tuple[str, str]], page: str = "") -> Declared:
    """What a record declares. `pairs`: of its headers or row (`Record.declared`); `page`: its HTML."""
    statements = [*_of_headers(pairs), *_of_html(page)]
    stated = [value for name, value in statements if name == "license"]
    licenses = stated or [value for name, value in statements if name == "linked license"]
    robots = [part for name, value in statements if name == "robots" for part in value.split(", ")]
    reservations = {value.strip() for name, value in statements if name == "tdm-reservation"} & {"0", "1"}
    policies = [value.strip() for name, value in statements if name == "tdm-policy"]
    return Declared(
        license="; ".join(_distinct(map(license_name, licenses), _MOST)) or None,
        robots=", ".join(_distinct(robots, _MOST_DIRECTIVES)) or None,
        tdm_reservation=max(reservations, default=None),  # whoever reserves, whatever another place says
        tdm_policy=next((policy[:_MOST_CHARS] for policy in policies if policy), None),
    )


def license_name(text: str) -> str:
    """A licence by one name: those of Creative Commons as SPDX has them, in lower case (`cc-by-sa-4.0`, `cc0-1.0`,
    `pdm-1.0`), other short identifiers in lower case, and anything else as it stands, cut to 200 characters."""
    text = " ".join(text.split()).replace(";", ",")
    if match := _CREATIVE_COMMONS.search(text):
        where, kind, version, place = (part.lower() if part else "" for part in match.groups())
        names = {"zero": "cc0", "mark": "pdm"} if where == "publicdomain" else {}
        return "-".join(part for part in (names.get(kind, f"cc-{kind}"), version, place) if part)
    if match := _CC_NAME.fullmatch(text):
        kind, version = re.sub(r"[ _]", "-", match[1].lower()), match[2]
        return "-".join(part for part in ("cc0" if kind == "0" else f"cc-{kind}", version) if part)
    return text.lower() if _SPDX.fullmatch(text) else text[:_MOST_CHARS]


def _distinct(values: Iterable[str], most: int) -> list[str]:
    return [value for value in dict.fromkeys(values) if value][:most]


def _of_headers(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, value in pairs:
        if name in ("robots", "x-robots-tag"):
            yield "robots", ", ".join(_directives(value))
        elif name == "link":
            for target, parameters in _LINK.findall(value):
                if _REL_LICENSE.search(parameters):
                    yield "license", target
        else:
            yield name, value


def _directives(value: str, agent: str = "") -> Iterator[str]:
    """Of a list as X-Robots-Tag and the meta element have it, in lower case; those for one crawler behind its name. The
    header names the crawler before the first of its directives."""
    for part in value.lower().split(","):
        name, colon, rest = (word.strip() for word in part.partition(":"))
        if colon and name not in _WITH_VALUE and _AGENT.fullmatch(name):
            agent, (name, colon, rest) = name, (word.strip() for word in rest.partition(":"))
        if not _DIRECTIVE.fullmatch(name):
            continue
        shown = f"{name}:{rest[:_MOST_CHARS]}" if colon and rest else name
        for directive in ("noindex", "nofollow") if shown == "none" else (shown,):
            yield f"{agent}:{directive}" if agent else directive


def _of_html(page: str) -> Iterator[tuple[str, str]]:
    at = 0
    while match := _START.search(page, at):
        at = match.end()
        if match[0] == "<!--":
            end = page.find("-->", at)
            at = len(page) if end < 0 else end + 3
            continue
        name, inside = match[1].lower(), match[2]
        if name in _ENDS:  # what stands in it are no elements
            end_tag = _ENDS[name].search(page, at)
            end = len(page) if end_tag is None else end_tag.start()
            if name == "script" and "ld+json" in inside.lower():
                yield from (("license", value) for value in _of_json_ld(page[at:end]))
            at = end
        elif name == "meta":
            yield from _of_meta(_attributes(inside))
        elif "license" in inside.lower() or "creativecommons.org/" in inside.lower():
            yield from _of_link(_attributes(inside))


def _attributes(inside: str) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for name, *values in _ATTRIBUTE.findall(inside):
        attributes.setdefault(name.lower(), html.unescape("".join(values)))  # the first counts (HTML, 13.2.5.33)
    return attributes


def _of_meta(attributes: dict[str, str]) -> Iterator[tuple[str, str]]:
    name = (attributes.get("name") or attributes.get("property") or "").strip().lower()
    content = attributes.get("content", "")
    if name == "robots":
        yield "robots", ", ".join(_directives(content))
    elif name.endswith("bot") or name in _AGENTS:
        yield "robots", ", ".join(_directives(content, name))
    elif name in ("tdm-reservation", "tdm-policy"):
        yield name, content
    elif name in _LICENSE_METAS:
        yield "license", content


def _of_link(attributes: dict[str, str]) -> Iterator[tuple[str, str]]:
    target = attributes.get("href", "")
    if "license" in attributes.get("rel", "").lower().split():
        yield "license", target
    elif _CREATIVE_COMMONS.search(target):
        yield "linked license", target


def _of_json_ld(text: str) -> Iterator[str]:
    """The licences of a document of schema.org's objects, but those of media in it."""
    if "license" not in text:
        return
    try:
        nodes: list[Any] = [json.loads(text)]
    except (ValueError, RecursionError):  # no JSON: nothing is said
        return
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += reversed(node)
        elif isinstance(node, dict):
            kinds = node.get("@type")
            if _MEDIA.isdisjoint(str(kind).lower() for kind in (kinds if isinstance(kinds, list) else [kinds])):
                yield from _texts(node.get("license"))
                nodes += [value for key, value in reversed(node.items()) if key != "license"]


def _texts(value: object) -> Sequence[str]:
    """An address or name, one of several, or that of an object."""
    texts = []
    for item in value if isinstance(value, list) else [value]:
        named = item.get("@id") or item.get("url") or item.get("name") if isinstance(item, dict) else item
        if isinstance(named, str):
            texts.append(named)
    return texts

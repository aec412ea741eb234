"""Entries of the suppression list: from what people write to hashes, wide enough that no spelling slips through.

A record id is narrow: the query of its URL is untouched. A takedown is not. Two spellings are one page where they
differ in percent-encodings of characters without a meaning of their own (RFC 3986, 6.2.2), in the case of hex digits,
in a space as ` `, `%20` or (in a query) `+`, in an IDNA host, a default port, dot segments or the fragment. Scheme,
`www.`, the order of parameters, `%2F` in a path and a slash at the end tell pages apart. `page_form` is that rule; ids
alone, where no URL is left, are matched by the hashes of every spelling that encodes each kind of character one way.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from itertools import product
from urllib.parse import quote, unquote, urlsplit

from gristmill.lake.accounts.identity import is_record_id, key_hash, normalise_url, remove_dot_segments, url_hash

_HEAD = re.compile(r"[\x00-\x20]*((?:[^/?#]*//)?[^/?#]*)")
"""The part of a URL that has the host: all before path, query and fragment."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
LONGEST = 253
"""Characters of a domain name (RFC 1035, section 2.3.4, as text)."""
_PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/?"
_PATH, _QUERY = "/?;=&+", "&=;+"
"""Characters with a meaning in a path and in a query: there `%2F` is not `/`, nor `%26` `&`."""
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_STRAY = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MARKS, _SIGNS = "!'()*", ":@,$/?"
"""What programs encode or leave alone, each program all of a kind: encodeURIComponent the second, quote both."""
_PORTS = {"http": 80, "https": 443, "ftp": 21}


def id_entry(text: str) -> str:
    """A record id as `grist why` shows it. Raises ValueError."""
    if not is_record_id(text.lower()):
        raise ValueError(f"{text!r} is no record id: 32 hex characters, as `grist why URL` shows them")
    return text.lower()


def medium_entry(text: str) -> str:
    """The sha256 of an image, a clip or a video. Raises ValueError."""
    if not _SHA256.fullmatch(text.lower()):
        raise ValueError(f"{text!r} is no sha256: 64 hex characters, as `sha256sum` prints them for a file")
    return text.lower()


def url_entries(text: str) -> tuple[frozenset[str], str]:
    """(first halves of the ids that records of this URL may have, its page). Raises ValueError for no absolute URL."""
    page = page_hash(text)
    if page is None:
        raise ValueError(
            f"{text!r} is no absolute URL: such as https://example.org/page; a record without one is named by its id"
        )
    return frozenset(url_heads(text)), page


def domain_entry(text: str) -> str:
    """The hash of a bare domain; it will cover its subdomains. Raises ValueError."""
    host = normalise_host(text)
    labels = host.split(".")
    if not host.isascii() or not re.fullmatch(r"[a-z0-9_.-]+", host) or "" in labels or len(host) > LONGEST:
        raise ValueError(
            f"{text!r} is no domain: a bare name such as example.org, without scheme, port or path; its subdomains are"
            " covered by it. For one page use its URL"
        )
    if len(labels) < 2 or (labels[-1].isdigit() and not _is_ipv4(host)):
        raise ValueError(
            f"{text!r} would cover a whole top level or network: at least two labels, such as example.org, or a whole"
            " IPv4 address"
        )
    return domain_hash(host)


def _is_ipv4(host: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(host))
    except ValueError:
        return False


def domain_hash(host: str) -> str:
    """Of a host in normal form: 32 hex characters."""
    return _hash(f"domain.1\0{host}", 16)


def host_hash(host: str) -> str:
    """How the entry of a page begins: 16 hex characters of its host."""
    return _hash(f"host.1\0{host}", 8)


def page_hash(url: str) -> str | None:
    """The entry of a page, `host_hash` first: 32 hex characters. None for no absolute URL."""
    form = page_form(url)
    return None if form is None else host_hash(host_of(url)) + _hash(f"page.1\0{form}", 8)


def _hash(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def page_form(url: str) -> str | None:
    """One string for all spellings of a page; None for no absolute URL. Linear in the URL's length."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.netloc:
        return None
    user = parts.netloc.rpartition("@")[0]
    place = "" if port is None or port == _PORTS.get(parts.scheme) else f":{port}"
    path = remove_dot_segments(_spelled(parts.path, _PATH)) or "/"
    asked = "?" in url.partition("#")[0]
    query = f"?{_spelled(parts.query.replace('+', ' '), _QUERY)}" if asked else ""
    return f"{parts.scheme}://{_spelled(user, '/:@')}@{host_of(url)}{place}{path}{query}"


def _spelled(text: str, structure: str) -> str:
    """Percent-encoded where it has to be, or where the raw character would be structure; upper-case hex."""

    def plain(match: re.Match[str]) -> str:
        char = chr(int(match[1], 16))
        return char if char in _PLAIN and char not in structure else match[0].upper()

    encoded = quote(text, safe=f"{_PLAIN}%", errors="surrogatepass")
    return _ESCAPE.sub(plain, _STRAY.sub("%25", encoded))


def url_heads(url: str) -> tuple[str, ...]:
    """First halves of the ids of records with this URL or key, in whatever spelling; the likeliest first."""
    heads = dict.fromkeys((url_hash(url), key_hash(url.strip())))
    for spelling in spellings(url):
        heads |= dict.fromkeys((url_hash(spelling), key_hash(spelling)))
    return tuple(heads)


def spellings(url: str) -> tuple[str, ...]:
    """Normal forms of the URL that name the same page: each kind of character encoded throughout, or nowhere. At most
    200; where nothing in it can be spelled in two ways, its own."""
    form = page_form(url)
    if form is None:
        return ()
    bare = form.replace("://@", "://", 1)  # a form has the user's place, though it be empty
    head = bare[: bare.find("/", bare.index("//") + 2)]
    path, mark, query = bare[len(head) :].partition("?")
    # What a program may do: encode a kind of characters throughout or nowhere, where there is one of it at all. `/` and
    # `?` are a kind in a query alone, as a path has them as structure.
    kinds: list[tuple[str, ...]] = []
    for kind in ("~", _MARKS, _SIGNS.removesuffix("/?")):
        kinds.append(("", kind) if any(char in kind for char in path + query) else ("",))
    kinds.append(("", "/?") if "/" in query or "?" in query else ("",))
    encodings = ["".join(choice) for choice in product(*kinds)]
    spaces = (" ", "%20", "+") if "%20" in query else ("",)
    raws = (False, True) if "%" in query else (False,)
    forms = dict.fromkeys((normalise_url(url), bare))
    for encode, space, raw, lower in product(encodings, spaces, raws, (False, True)):
        spelled_query = _respelled(query, encode, space, raw=raw, lower=lower)
        spelled_path = _respelled(path, encode.replace("/?", ""), "%20", raw=False, lower=False)
        forms[normalise_url(f"{head}{path}{mark}{spelled_query}")] = None
        forms[normalise_url(f"{head}{spelled_path}{mark}{spelled_query}")] = None
    return tuple(forms)


def _respelled(text: str, encode: str, space: str, *, raw: bool, lower: bool) -> str:
    """A text that `_spelled` left, in another spelling: characters of `encode` encoded, a space as `space`, what has to
    be encoded for safety alone decoded if `raw`, hex digits in lower case if `lower`."""
    text = text.replace("%20", " ")
    if raw:  # structure and what is no text stay encoded
        text = _PERCENT.sub("%", _TEXT.sub(_decoded, text))
    text = "".join(f"%{ord(char):02X}" if char in encode else char for char in text)
    if lower:
        text = _ESCAPE.sub(lambda match: match[0].lower(), text)
    return text.replace(" ", space)


_TEXT = re.compile(r"(?:%[89A-F][0-9A-F])+|%(?:22|3C|3E|5B|5C|5D|5E|60|7B|7C|7D)")
_PERCENT = re.compile(r"%25(?![0-9A-F]{2})")
"""A `%` that begins no percent-encoding."""


def _decoded(match: re.Match[str]) -> str:
    """The characters of percent-encoded bytes; as they stand where they are no UTF-8."""
    try:
        return unquote(match[0], errors="strict")
    except UnicodeDecodeError:
        return match[0]


def normalise_host(host: str) -> str:
    """Lower case, percent-encodings undone, other scripts in IDNA (2003, as in record ids), no dot at the end."""
    host = (unquote(host) if "%" in host else host).strip()
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:  # not a legal name; as it stands it still identifies
            host = host.casefold()
    return host.lower().rstrip(".")


def host_of(url: str) -> str:
    """The host of a URL, or of what stands first where there is no scheme; "" for none."""
    match = _HEAD.match(re.sub(r"[\t\r\n]", "", url))
    return host_in(match[1]) if match else ""


def host_in(head: str) -> str:
    """The host in `scheme://user@host:port`; where there is no scheme, in what stands first."""
    before, slashes, after = head.partition("//")
    authority = after if slashes and (not before or before.endswith(":")) else before
    address = authority.rpartition("@")[2]
    return normalise_host(address[1:].partition("]")[0] if address.startswith("[") else address.partition(":")[0])

"""HTTP messages as crawls store them, to the page in them; shared by WARC and ARC.

Where a writer left out the status line, or all headers, they are unknown. The body is decoded as a browser would.
"""

from __future__ import annotations

import re

from gristmill.stages.containers.archives.http_body import BodyError, decode_body
from gristmill.stages.containers.archives.http_head import HeadError, parse_head
from gristmill.stages.containers.record import Record, RecordError

_CHARSET = re.compile(r"charset\s{0,32}=[\s\"']{0,32}([^\s\"';,]{1,64})", re.IGNORECASE)
_DECLARES = ("x-robots-tag", "tdm-reservation", "tdm-policy", "link")
"""Header fields that say what may be done with a page."""
_MEDIA_TYPE = re.compile(r"\s{0,32}([a-z][a-z0-9-]{0,31}/[a-z0-9!#$&^_.+*-]{1,127})", re.IGNORECASE)  # RFC 6838, 4.2


def http_page(item: Record, block: bytes, limit: int) -> Record:
    """The page of the HTTP message in `block`, its body at most `limit` bytes. Raises RecordError."""
    try:
        head = parse_head(block)
        body = decode_body(head, block[head.end :], limit)
    except (HeadError, BodyError) as error:
        raise RecordError(str(error)) from None
    page = typed(item, head.first("content-type") or "")
    truncated = item.truncated or body.cut
    declared = tuple((name, value) for name in _DECLARES for value in head.fields.get(name, ()))
    return page._replace(
        kind="page", payload=body.data, http_status=head.status, truncated=truncated, declared=declared
    )


def typed(item: Record, declared: str) -> Record:
    """With what a Content-Type says, where it is one: the media type enters the ledger, and could be anything."""
    charset = _CHARSET.search(declared)
    media = _MEDIA_TYPE.match(declared)
    return item._replace(
        content_type=media.group(1).lower() if media else None,
        charset=charset.group(1) if charset else None,
    )

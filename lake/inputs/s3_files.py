"""Inputs on S3, through the client that the lake uses: fsspec's own (s3fs) wants another version of it beside it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from gristmill.lake.inputs.files import BUFFER, InputInfo, InputStore, is_folder, matches, missing
from gristmill.lake.inputs.patterns import MAGIC, Survey
from gristmill.lake.store.s3_connection import RangeReader, connect, head, split_uri


class S3Inputs(InputStore):
    """`s3://bucket/key`. Streams resume where a connection dropped, and refuse to go on in an object that changed."""

    def open(self, uri: str, offset: int = 0) -> BinaryIO:
        reader = RangeReader(connect().client, *split_uri(uri), offset)
        return cast(BinaryIO, io.BufferedReader(reader, BUFFER))

    def info(self, uri: str) -> InputInfo:
        known = head(connect().client, *split_uri(uri))
        if known is None:
            raise missing(uri)
        return InputInfo(uri, known.size, known.modified, known.etag.strip('"'))

    def survey(self, pattern: str) -> Survey:
        return Survey(sorted(_expand(pattern)), [], [])


def _expand(where: str) -> list[str]:
    """The objects that an address or pattern names: by its own name first, as keys may have `*` in them."""
    client = connect().client
    bucket, key = split_uri(where)
    if key and not key.endswith("/") and head(client, bucket, key) is not None:
        return [where]
    magic = MAGIC.search(key)
    if magic is None:
        folder = key.rstrip("/") + "/" if key else ""
        if client.list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=1).get("Contents"):
            raise is_folder(where)
        return []
    wanted = key.split("/")
    names = _names(client, bucket, key[: magic.start()])
    return [f"s3://{bucket}/{name}" for name in names if matches(name.split("/"), wanted)]


def _names(client: Any, bucket: str, prefix: str) -> Iterator[str]:
    """Keys below a prefix; without those that end in a slash, by which some tools mark a folder."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                yield item["Key"]

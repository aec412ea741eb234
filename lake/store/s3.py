"""The store below an S3 prefix: boto3 for whole objects and commits, pyarrow.fs for random access.

`create` is one `PUT If-None-Match: *`; 304, 404, 409 and 412 all mean "refused", whichever the vendor chose.
Single PUTs are atomic and durable once answered; larger files go up in parts and appear when joined.
Listings are sorted here: SeaweedFS lists folder by folder (`a/b` before `a-b`), AWS in key order.
State is the address only; see lake/store/s3_connection.py for the connection.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from botocore.exceptions import ClientError

from gristmill.lake.store.base import (
    ALLOWED,
    Info,
    NotFound,
    Store,
    UnsafeStore,
    check_key,
    check_prefix,
    settle_create,
)
from gristmill.lake.store.s3_connection import MissingBucket, RangeReader, connect, error_status, head, split_uri

PAGE = 1000
"""Keys an answer of a listing has: the most that S3 gives."""
_REFUSED = {304, 404, 409, 412}
"""Answers to `If-None-Match: *` that are no success: 412, the key is taken (304 is HTTP's answer to the header where it
reads); 409, another conditional write of it is under way; 404, it was deleted during this one. After all of them the
key is read, and if nothing is there, asked for again (`settle_create`)."""


class S3Store(Store):
    """The Store contract over "s3://bucket[/prefix]"."""

    def __init__(self, uri: str) -> None:
        self._bucket, prefix = split_uri(uri.rstrip("/"))
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        self.uri = f"s3://{self._bucket}/{prefix}".rstrip("/")

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def get(self, key: str) -> bytes:
        name = self._name(key)
        try:
            with RangeReader(self._client, self._bucket, name) as reader:
                return reader.readall()
        except MissingBucket:
            raise
        except FileNotFoundError as error:
            raise NotFound(self.uri, key) from error

    def open(self, key: str) -> pa.NativeFile:
        name = self._name(key)
        try:
            return connect().filesystem().open_input_file(f"{self._bucket}/{name}")
        except FileNotFoundError as error:
            self._require_bucket()
            raise NotFound(self.uri, key) from error

    def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        try:
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data)
        except ClientError as error:
            self._explain(error)
            if error_status(error)[0] == 403:  # as a folder says it
                raise PermissionError(errno.EACCES, f"{self.uri} may not be written ({error})") from error
            raise

    def put_file(self, key: str, path: str | Path) -> None:
        name = self._name(key)
        try:
            self._client.upload_file(os.fspath(path), self._bucket, name)
        except ClientError as error:
            self._explain(error)
            raise
        os.unlink(path)

    def create(self, key: str, data: bytes) -> bool:
        return settle_create(self, key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """As in Store; raises UnsafeStore when the store says that it has no conditional writes."""
        name = self._name(key)
        try:
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*")
            return True
        except ClientError as error:
            self._explain(error)
            status, code = error_status(error)
            if status == 501 or code == "NotImplemented":
                raise UnsafeStore(
                    f"{self.uri} has no conditional writes: it answered {status} {code} to "
                    f"`If-None-Match: *`. {ALLOWED}"
                ) from error
            if status not in _REFUSED:
                raise
            return False

    def info(self, key: str) -> Info | None:
        info = head(self._client, self._bucket, self._name(key))
        return None if info is None else Info(key, info.size, info.modified)

    def list(self, prefix: str = "") -> Iterator[Info]:
        check_prefix(prefix)
        return iter(sorted(self._pages(prefix)))

    def _pages(self, prefix: str) -> Iterator[Info]:
        """The objects below a prefix of the lake, in whatever order the store lists them."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, PaginationConfig={"PageSize": PAGE}
        )
        try:
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    if key and not key.endswith("/"):  # some tools put an empty object for a folder
                        yield Info(key, item["Size"], item["LastModified"].timestamp())
        except ClientError as error:
            self._explain(error)
            raise

    def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            self._client.delete_object(Bucket=self._bucket, Key=name)
        except ClientError as error:
            self._explain(error)
            if error_status(error)[0] != 404:
                raise

    @property
    def _client(self) -> Any:
        return connect().client

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _explain(self, error: ClientError) -> None:
        """Raises MissingBucket in place of an error that means it."""
        if error_status(error)[1] == "NoSuchBucket":
            raise MissingBucket(self._bucket) from error

    def _require_bucket(self) -> None:
        """Tells "no such object" from "no such bucket", which HEAD cannot. Only on the way to an error."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if error_status(error)[0] == 404:
                raise MissingBucket(self._bucket) from error
            # 403 without s3:ListBucket: the object's own absence is then all we know.
            if error_status(error)[0] != 403:
                raise

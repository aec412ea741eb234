"""One connection to S3, the same for boto3 (commits, listing) and pyarrow.fs (random access).

pyarrow does not read profiles, SSO or AWS_ENDPOINT_URL_S3, so it is told what boto3 resolved from them.
A connection belongs to one process and one AWS environment; it is made on first use and never pickled.
An endpoint that is not AWS is addressed path-style (`host/bucket/key`): few such stores have wildcard DNS.
Reads are ranges that resume where a connection dropped, and refuse to go on in an object that was replaced.
"""

from __future__ import annotations

import io
import os
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import boto3
import botocore.session
import pyarrow.fs
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ATTEMPTS = 5
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60
_AWS_HOST = re.compile(r"s3(\.[a-z0-9-]+)?\.amazonaws\.com(\.cn)?")
_DROPPED = (HTTPClientError, IncompleteReadError, ConnectionError, TimeoutError)


class Connection:
    """The boto3 client, and a pyarrow file system with the same endpoint, region and credentials."""

    def __init__(self) -> None:
        self._settings = botocore.session.get_session()
        self._session = boto3.session.Session(botocore_session=self._settings)
        if self._session.get_credentials() is None:
            raise PermissionError(
                "no AWS credentials found for s3://: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or AWS_PROFILE, or run where an instance role gives them"
            )
        profile = self._settings.get_scoped_config().get("s3") or {}
        style = profile.get("addressing_style", "auto")
        self.client = self._make_client(style)
        # Only a client knows which endpoint the environment, profile and region come to; if it is not AWS, it is made
        # once more, with the style that such stores can do.
        self.endpoint = urlsplit(self.client.meta.endpoint_url)
        self._is_aws = _AWS_HOST.fullmatch(self.endpoint.netloc) is not None
        if not self._is_aws and style == "auto":
            style = "path"
            self.client = self._make_client(style)
        self._virtual = style == "virtual"
        self._filesystems: dict[tuple[str, str, str | None], pyarrow.fs.S3FileSystem] = {}

    def _make_client(self, style: str) -> Any:
        return self._session.client(
            "s3",
            region_name=self._session.region_name or "us-east-1",
            config=Config(
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=32,
                s3={"addressing_style": style},
            ),
        )

    def filesystem(self) -> pyarrow.fs.S3FileSystem:
        """Made anew when temporary credentials were renewed; open files keep the ones they began with."""
        keys = self._session.get_credentials().get_frozen_credentials()
        cached = self._filesystems.get(keys[:3])
        if cached is None:
            cached = self._make_filesystem(*keys[:3])
            self._filesystems = {keys[:3]: cached}
        return cached

    def _make_filesystem(self, access: str, secret: str, token: str | None) -> pyarrow.fs.S3FileSystem:
        """pyarrow's view of what boto3 resolved, with the same timeouts and number of attempts."""
        bundle = self._settings.get_config_variable("ca_bundle")
        return pyarrow.fs.S3FileSystem(
            access_key=access,
            secret_key=secret,
            session_token=token,
            region=self._session.region_name or "us-east-1",
            scheme=self.endpoint.scheme,
            endpoint_override=None if self._is_aws else self.endpoint.netloc + self.endpoint.path.rstrip("/"),
            force_virtual_addressing=self._virtual,
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=READ_TIMEOUT_S,
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            tls_ca_file_path=bundle or None,
        )


def connect() -> Connection:
    """This process's connection for the AWS environment as it is now."""
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    return _connection(os.getpid(), environment)


@lru_cache(maxsize=4)
def _connection(pid: int, environment: tuple[tuple[str, str], ...]) -> Connection:
    """Keyed by pid because sockets must not be shared over a fork."""
    return Connection()


def split_uri(uri: str) -> tuple[str, str]:
    """("bucket", "key/or/prefix") of "s3://bucket/key/or/prefix"; the second may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise ValueError(f"S3 address {uri!r} names no bucket; write s3://bucket/path")
    return bucket, key


def error_status(error: ClientError) -> tuple[int, str]:
    """(HTTP status, S3 error code) of an answer that was not a success."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]


class MissingBucket(FileNotFoundError):
    """Not an absent object: a wrong name or endpoint, which no caller should take for "not written yet"."""

    def __init__(self, bucket: str) -> None:
        super().__init__(bucket)
        self.bucket = bucket

    def __str__(self) -> str:
        # Not an argument: exceptions are rebuilt from their arguments when they cross processes.
        return (
            f"S3 has no bucket {self.bucket!r} at this endpoint; create it, "
            "or check the name, AWS_REGION and AWS_ENDPOINT_URL"
        )


class Head(NamedTuple):
    """Bytes, seconds since the epoch, and the entity tag that changes with the content."""

    size: int
    modified: float
    etag: str


def head(client: Any, bucket: str, key: str) -> Head | None:
    """None when absent. (A HEAD has no body, so a missing bucket looks the same.)"""
    try:
        answer = client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error_status(error)[0] == 404:
            return None
        raise
    return Head(answer["ContentLength"], answer["LastModified"].timestamp(), answer["ETag"])


class RangeReader(io.RawIOBase):
    """Sequential bytes of one object from `offset` on; `tell` is the position in the object.

    A dropped connection is taken up again at the position reached, at most ATTEMPTS times without progress.
    Raises FileNotFoundError when absent, OSError when the object was replaced between two connections.
    """

    def __init__(self, client: Any, bucket: str, key: str, offset: int = 0) -> None:
        self._client, self._bucket, self._key, self._position = client, bucket, key, offset
        self._body: Any = None
        if offset == 0:  # one request, not two: most objects are small and read whole
            try:
                answer = client.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                raise self._absent(error) from error
            self._size, self._etag, self._body = answer["ContentLength"], answer["ETag"], answer["Body"]
            return
        known = head(client, bucket, key)
        if known is None:
            raise FileNotFoundError(f"no object s3://{bucket}/{key}")
        if not 0 <= offset <= known.size:
            raise ValueError(f"offset {offset} is outside s3://{bucket}/{key} of {known.size} bytes")
        self._size, self._etag = known.size, known.etag

    def _absent(self, error: ClientError) -> Exception:
        status, code = error_status(error)
        if code == "NoSuchBucket":
            return MissingBucket(self._bucket)
        return FileNotFoundError(f"no object s3://{self._bucket}/{self._key}") if status == 404 else error

    def readable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position in the object."""
        return self._position

    def seekable(self) -> bool:
        """It is, at the price of a request for each place."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Another place in the object, from where the next read asks for a range."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset != self._position:
            self._drop()
            self._position = min(max(0, start + offset), self._size)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills the buffer or less of it, and returns how many bytes; 0 at the end of the object only.

        Raises ConnectionError after ATTEMPTS connections that gave nothing, OSError for an object that was replaced.
        """
        view = memoryview(buffer).cast("B")
        for attempt in range(ATTEMPTS):
            if self._position == self._size or not len(view):
                return 0
            try:
                if self._body is None:
                    self._body = self._request()
                # Not the body's own readinto: it does not notice that the server closed early.
                data = self._body.read(min(len(view), self._size - self._position))
                if data:
                    view[: len(data)] = data
                    self._position += len(data)
                    return len(data)
                failure: Exception = ConnectionError("the server closed early")
            except _DROPPED as error:
                failure = error
            self._drop()
            time.sleep(0.05 * 2**attempt)
        raise ConnectionError(  # by its type it is an outage also where its cause is lost, between processes
            f"reading s3://{self._bucket}/{self._key} stopped at byte {self._position} of {self._size}: "
            f"{ATTEMPTS} connections in a row gave nothing; check the network and the store"
        ) from failure

    def readall(self) -> bytes:
        """All bytes that are left; `io.RawIOBase` would ask for them in small pieces."""
        return b"".join(iter(lambda: self.read(1 << 20) or b"", b""))

    def _request(self) -> Any:
        """A connection from the position on, to the very object that was opened. Raises OSError if it was replaced."""
        try:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={self._position}-", IfMatch=self._etag
            )
        except ClientError as error:
            if error_status(error)[0] in (404, 412, 416):
                raise self._replaced() from error
            raise
        # Checked here too: a store that ignores If-Match, or Range, must not splice two objects.
        if answer["ETag"] != self._etag:
            raise self._replaced()
        if answer["ContentLength"] != self._size - self._position:
            raise OSError(
                f"the store answered {answer['ContentLength']} bytes to `Range: bytes={self._position}-` of "
                f"s3://{self._bucket}/{self._key} ({self._size} bytes): it does not honour Range; "
                "use another store"
            )
        return answer["Body"]

    def _replaced(self) -> OSError:
        return OSError(
            f"s3://{self._bucket}/{self._key} was replaced or deleted while it was read "
            f"(at byte {self._position}); inputs must not change during a run: start again"
        )

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        """Gives the connection up; reading is over."""
        if not self.closed:
            self._drop()
        super().close()

"""The S3 store on bad days: ignored conditions, lost answers, conflicts, cut connections, wrong buckets."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_s3 import FakeS3, run_fake_s3
from proxy import run_proxy
from s3_server import S3Server

from gristmill.lake.store import s3_connection as s3_module
from gristmill.lake.store.base import MARKER, NotFound, UnsafeStore
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.s3_connection import MissingBucket, connect
from tests.conftest import use_s3


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """A faulty store, and an environment that leads to it."""
    with run_fake_s3() as (server, address):
        use_s3(address, monkeypatch)
        yield server


LAKE = "s3://fake-bucket/lake"


def test_a_store_that_ignores_the_condition_is_refused_and_unharmed(fake: FakeS3) -> None:
    honest = open_store(LAKE)
    marker = honest.get(MARKER)
    fake.ignore_conditions = True
    with pytest.raises(UnsafeStore, match=r"ignores conditional writes.*Allowed: .*Upgrade the store"):
        open_store(LAKE)
    assert fake.objects == {"lake/lake.json": marker}


def test_who_may_only_read_is_told_so_as_by_a_folder(fake: FakeS3) -> None:
    store = open_store(LAKE)
    fake.read_only = True
    with pytest.raises(PermissionError, match=r"s3://fake-bucket/lake may not be written .*AccessDenied") as refusal:
        store.put("a/b", b"x")
    assert refusal.value.errno == errno.EACCES and store.get(MARKER)


def test_a_new_lake_on_such_a_store_is_refused_too(fake: FakeS3) -> None:
    fake.ignore_conditions = True
    with pytest.raises(UnsafeStore):
        open_store(LAKE)


def test_a_store_that_says_it_has_no_conditions_is_refused(fake: FakeS3) -> None:
    open_store(LAKE)
    fake.refuse_status = 501
    with pytest.raises(UnsafeStore, match=r"has no conditional writes: it answered 501"):
        open_store(LAKE)


@pytest.mark.parametrize("status", [304, 404, 409, 412])
def test_every_way_to_refuse_is_a_lost_create(fake: FakeS3, status: int) -> None:
    fake.refuse_status = status
    store = open_store(LAKE)
    assert store.create("slot", b"mine")
    assert not store.create("slot", b"theirs")
    assert store.get("slot") == b"mine"


def test_a_create_whose_answer_was_lost_is_ours(fake: FakeS3) -> None:
    store = open_store(LAKE)
    fake.puts, fake.drop_puts = 0, 1
    assert store.create("slot", b"mine, with a nonce")
    assert fake.puts == 2, "boto3 did retry, and the retry was refused"
    assert not store.create("slot", b"theirs")


def test_a_conflict_in_flight_is_asked_again(fake: FakeS3) -> None:
    store = open_store(LAKE)
    fake.conflicts = 3
    assert store.create("slot", b"mine")
    assert fake.conflicts == 0


def test_a_conflict_without_end_is_an_error_not_a_wrong_answer(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(LAKE)
    monkeypatch.setattr("gristmill.lake.store.base.CREATE_ATTEMPTS", 3)
    fake.conflicts = 1000
    with pytest.raises(RuntimeError, match="was refused 3 times with nothing there to read"):
        store.create("slot", b"mine")
    assert "lake/slot" not in fake.objects


def test_get_resumes_a_cut_connection(fake: FakeS3) -> None:
    store = open_store(LAKE)
    data = bytes(range(256)) * 40_000
    store.put("large", data)
    fake.gets, fake.cut_gets = [], 2
    assert store.get("large") == data
    assert fake.gets[0] == "whole" and len(fake.gets) == 3
    assert all(request.startswith("bytes=") for request in fake.gets[1:])


def test_a_real_store_whose_answer_is_swallowed(s3_lake: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_proxy(s3) as (proxy, through):
        use_s3(through, monkeypatch)
        store = open_store(s3_lake)
        proxy.swallow = 1
        assert store.create("slot", b"mine, with a nonce")
        assert proxy.swallowed == [b"HTTP/1.1 200 OK"], "the store took it and the client was not told"
        assert not store.create("slot", b"theirs")


def test_a_missing_bucket_is_not_an_empty_lake(s3_environment: S3Server) -> None:
    for probe in (True, False):
        with pytest.raises(MissingBucket, match="no bucket 'no-such-bucket'"):
            open_store("s3://no-such-bucket/lake", probe=probe)


def test_open_tells_missing_bucket_from_missing_object(s3_lake: str, s3: S3Server) -> None:
    store = open_store(s3_lake)
    with pytest.raises(NotFound):
        store.open("absent")
    store._bucket = "no-such-bucket"
    with pytest.raises(MissingBucket):
        store.open("absent")


def test_no_credentials_says_what_to_set(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(PermissionError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"):
        open_store(LAKE)


def test_a_profile_serves_both_clients(
    s3: S3Server, s3_lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow reads neither a profile's endpoint nor its services section: it must get both from boto3."""
    environment = s3.environment
    for name in environment:
        if name.startswith("AWS_") and name != "AWS_EC2_METADATA_DISABLED":
            monkeypatch.delenv(name)
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    config.write_text(
        f"[profile mill]\nregion = us-east-1\nservices = here\n[services here]\ns3 =\n  endpoint_url = {s3.endpoint}\n"
    )
    credentials.write_text(
        f"[mill]\naws_access_key_id = {environment['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {environment['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "mill")
    store = open_store(s3_lake)
    store.put("k", b"value")
    with store.open("k") as stream:
        assert stream.read() == b"value"


def test_one_connection_a_process_and_environment(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    first = connect()
    assert connect() is first
    assert first.filesystem() is first.filesystem()
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert connect() is not first
    monkeypatch.setattr(s3_module.os, "getpid", lambda: -1)
    assert connect() is not first


def test_aws_itself_is_addressed_by_host_and_pyarrow_left_to_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint, is_aws in (
        ("https://s3.eu-west-1.amazonaws.com", True),
        ("https://s3.amazonaws.com", True),
        ("https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com", False),
        ("http://127.0.0.1:9000", False),
        ("https://minio.example.org", False),
    ):
        use_s3(S3Server(endpoint, "b"), monkeypatch)
        connection = connect()
        assert connection._is_aws == is_aws
        assert (connection.client.meta.config.s3["addressing_style"] == "path") == (not is_aws)

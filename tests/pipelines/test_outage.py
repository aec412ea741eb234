"""A store that goes away: waited for, said once, and exit code 5 where it stays away. No test waits for the clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import web
from proxy import SwallowingProxy, run_proxy
from s3_server import S3Server

from gristmill.lake.store import s3_connection as s3_module
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.outage import Patience, is_outage
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines import command as program
from gristmill.pipelines.command import Request, run
from tests.conftest import use_s3


class Pauses:
    """Stands for time: each pause advances it, and tells whoever has something to do at the n-th."""

    def __init__(self, then: dict[int, Callable[[], None]]) -> None:
        self.now, self.count, self.then = 0.0, 0, then

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.count += 1
        self.then.get(self.count, lambda: None)()


@pytest.fixture
def proxy(s3: S3Server, s3_lake: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(s3_module, "ATTEMPTS", 1)  # the client's own seconds
    with run_proxy(s3) as (proxy, through):
        use_s3(through, monkeypatch)
        yield proxy


def patiently(monkeypatch: pytest.MonkeyPatch, then: dict[int, Callable[[], None]]) -> Pauses:
    pauses = Pauses(then)
    counted = partial(Patience, sleep=pauses.sleep, clock=lambda: pauses.now)
    monkeypatch.setattr(program, "Patience", counted)
    return pauses


def answers(proxy: SwallowingProxy) -> Callable[[], None]:
    return partial(setattr, proxy, "down", False)


def request(inputs: list[Path | str], lake: str, seconds: int = 600) -> Request:
    data = web.config(inputs, max_quarantine_rate=0.6).model_dump(mode="json")
    data["run"] |= {"workers": 0, "patience_seconds": seconds}
    return Request(data, lake=lake)


def test_a_store_that_is_away_at_the_start_is_waited_for(proxy, s3_lake, sample, monkeypatch, capsys, caplog):
    pauses = patiently(monkeypatch, {3: answers(proxy)})
    proxy.down = True
    assert run(request(web.crawl_files(sample)[3:], s3_lake)) == 0
    assert pauses.count == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["new"] is True
    assert caplog.text.count("unreachable") == 1 and "answered again" in caplog.text


def test_a_store_that_stays_away_is_exit_code_5_in_one_line(proxy, s3_lake, sample, monkeypatch, capsys, caplog):
    pauses = patiently(monkeypatch, {})
    proxy.down = True
    assert run(request(web.crawl_files(sample)[3:], s3_lake, seconds=100)) == 5
    printed = capsys.readouterr()
    assert pauses.now == 100 and printed.out == ""
    (line,) = printed.err.splitlines()
    assert (
        line.startswith(f"error: store {s3_lake}, inputs or cluster unreachable for 100 s: ") and "run the same" in line
    )
    assert caplog.text.count("unreachable") == 1 and "Traceback" not in printed.err


@pytest.mark.parametrize("requests", [10, 40])
def test_an_outage_in_the_middle_costs_nothing_but_time(
    proxy, s3_lake, sample, tmp_path, requests, monkeypatch, capsys, caplog
):
    files = web.crawl_files(sample)[3:]
    pauses = patiently(monkeypatch, {2: answers(proxy)})
    proxy.down_after = requests
    assert run(request(files, s3_lake)) == 0
    assert pauses.count == 2, "the outage was in the middle"
    assert caplog.text.count("unreachable") == 1 and "failed" not in caplog.text
    digest = json.loads(capsys.readouterr().out.splitlines()[-1])["digest"]
    assert digest == web.run(tmp_path, files, max_quarantine_rate=0.6).manifest.digest
    assert Versions(open_store(s3_lake)).numbers("web") == [1]


def test_every_way_to_read_s3_meets_an_outage_as_one(proxy, s3_lake):
    store = open_store(s3_lake)
    store.put("k", b"value")
    proxy.down = True
    for call in (store.get, store.open, store.info, store.delete):
        with pytest.raises(Exception) as met:
            call("k")
        assert is_outage(met.value), f"{call.__name__}: {met.value!r}"
    for write in (store.put, store.create):
        with pytest.raises(Exception) as met:
            write("k", b"other")
        assert is_outage(met.value), f"{write.__name__}: {met.value!r}"
    with pytest.raises(Exception) as met:
        list(store.list())
    assert is_outage(met.value)


def test_a_store_that_refuses_is_not_waited_for(s3, s3_lake, sample, monkeypatch, capsys):
    pauses = patiently(monkeypatch, {})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert run(request(web.crawl_files(sample)[3:], s3_lake)) == 2
    assert pauses.count == 0 and "cannot be opened" in capsys.readouterr().err

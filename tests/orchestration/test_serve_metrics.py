"""What a server tells those who run it: /metrics as Prometheus reads them, and a log that is silent of its clients."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Running, chat, connected, posted, serving, text
from waiting import PATIENCE, until

from gristmill.orchestration.observe.requests import open_log

CHAT = "/v1/chat/completions"
SECRET = "swordfish"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "requests.jsonl"


@pytest.fixture(scope="module")
def server(log: Path) -> Iterator[Running]:
    with serving(request_log=open_log(str(log))) as running:
        yield running


def counts(server: Running) -> dict[str, float]:
    """Each sample by its name and labels."""
    answer = httpx.get(f"{server.url}/metrics", timeout=PATIENCE)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    return {
        sample.name
        + "".join(
            f" {sample.labels[name]}" for name in ("route", "status", "le") if name in sample.labels
        ): sample.value
        for sample in samples
    }


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def line_of(log: Path, id: str) -> dict[str, Any]:
    """The line comes when the request has ended, which its client may know a little earlier."""
    line = until(lambda: next((line for line in lines(log) if line["id"] == id), None), "the line of a request")
    assert line is not None
    return line


def test_requests_are_counted_by_endpoint_and_status(server: Running) -> None:
    before = counts(server)
    answer = chat(server, n=2, max_tokens=5)
    with pytest.raises(openai.BadRequestError):
        chat(server, temperature=-1)
    for path in ("/v1/nothing", "/etc/passwd", "/v1/models/other"):
        httpx.get(server.url + path, timeout=PATIENCE)
    after = counts(server)
    new = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
    assert (new[f"grist_requests_total {CHAT} 200"], new[f"grist_requests_total {CHAT} 400"]) == (1, 1)
    assert new["grist_requests_total other 404"] == 2 and new["grist_requests_total /v1/models/{model:path} 404"] == 1
    assert new["grist_generated_tokens_total"] == answer.usage.completion_tokens
    assert new["grist_prompt_tokens_total"] == answer.usage.prompt_tokens
    assert new[f"grist_time_to_first_token_seconds_count {CHAT}"] == 1
    assert new[f"grist_request_seconds_count {CHAT}"] == 2
    first, whole = (f"grist_{name}_sum {CHAT}" for name in ("time_to_first_token_seconds", "request_seconds"))
    assert 0 < new[first] < new[whole]


def test_what_is_under_way_is_seen(server: Running) -> None:
    assert counts(server)["grist_engine_slots"] == 4 and counts(server)["grist_engine_slots_used"] == 0
    server.engine.delay = 0.02
    with connected(server, posted("completions", prompt="the cat", n=2, max_tokens=200)):
        until(lambda: counts(server)["grist_engine_slots_used"] == 2, "two completions in slots")
        seen = counts(server)
        assert seen["grist_requests_in_flight"] == 2  # and the one that asks
        assert 0 < seen["grist_queue_bytes"] < seen["grist_queue_bytes_limit"]
        assert (seen["grist_engine_up"], seen["grist_requests_waiting"]) == (1, 0)
    server.engine.delay = 0.0
    until(lambda: counts(server)["grist_engine_slots_used"] == 0, "the slots to be free")
    until(lambda: counts(server)["grist_queue_bytes"] == 0, "the bytes to be given back")


def test_no_name_that_a_client_chooses_becomes_a_label(server: Running) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        client.get("/v1/models/x")
        client.get("/x")
        before = len(counts(server))
        for number in range(5):
            client.get(f"/v1/models/{number}")
            client.request(f"VERB{number}", f"/{number}")
    assert len(counts(server)) == before


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_a_line(server: Running, log: Path, stream: bool) -> None:
    raw = server.client.chat.completions.with_raw_response.create(
        model="tiny", messages=[{"role": "user", "content": SECRET}], max_tokens=4, stream=stream, seed=1
    )
    answer = list(raw.parse()) if stream else raw.parse()
    line = line_of(log, raw.headers["x-request-id"])
    assert (line["route"], line["status"], line["whole"]) == (CHAT, 200, True)
    assert 0 < line["first_token_seconds"] <= line["seconds"]
    assert 0 < line["generated_tokens"] <= 4 and line["prompt_tokens"] > 0
    if not stream:
        assert line["generated_tokens"] == answer.usage.completion_tokens


def test_a_client_that_leaves_is_a_line_too(server: Running, log: Path) -> None:
    before = {line["id"] for line in lines(log)}
    with connected(server, posted("completions", prompt="the cat", max_tokens=200, stream=True)) as connection:
        assert connection.recv(1 << 16)
    line = until(
        lambda: next(
            (line for line in lines(log) if line["id"] not in before and "completions" in line["route"]), None
        ),
        "the line of who left",
    )
    assert line is not None and (line["status"], line["whole"]) == (200, False)
    before |= {line["id"]}
    server.engine.delay = 0.01
    try:
        with connected(server, posted("completions", prompt="the cat", max_tokens=200)):
            until(lambda: counts(server)["grist_engine_slots_used"] == 1, "a completion in its slot")
    finally:
        server.engine.delay = 0.0
    line = until(
        lambda: next(
            (line for line in lines(log) if line["id"] not in before and "completions" in line["route"]), None
        ),
        "the line of who left",
    )
    assert line is not None and line["status"] == 499


def test_the_log_tells_nothing_of_a_client(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with serving(request_log=open_log(str(log)), api_key=f"key-{SECRET}") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=f"key-{SECRET}", max_retries=0, timeout=PATIENCE)
        client.completions.create(model="tiny", prompt=SECRET, max_tokens=2, user=SECRET)
        with pytest.raises(openai.AuthenticationError):
            text(server)
        headers = {"Authorization": f"Bearer {SECRET}", "X-Request-Id": SECRET, "Cookie": SECRET}
        httpx.get(f"{server.url}/v1/models/{SECRET}?key={SECRET}", headers=headers, timeout=PATIENCE)
        metrics = httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text
    written = log.read_text()
    assert SECRET not in written + metrics
    assert sorted(line["status"] for line in lines(log)) == [200, 200, 401, 401]
    fields = {"at", "id", "route", "status", "whole", "seconds", "first_token_seconds", "prompt_tokens"}
    assert all(line.keys() == fields | {"generated_tokens"} for line in lines(log))


def test_a_log_that_was_rotated_goes_on_in_a_new_file(tmp_path: Path) -> None:
    log = open_log(str(tmp_path / "log"))
    record = logging.makeLogRecord({"msg": "1", "levelno": logging.INFO})
    log.handle(record)
    (tmp_path / "log").rename(tmp_path / "old")
    log.handle(record)
    assert [(tmp_path / name).read_text() for name in ("old", "log")] == ["1\n", "1\n"]
    with pytest.raises(OSError, match="No such file"):
        open_log(str(tmp_path / "no" / "log"))


def test_a_failed_engine_is_down(tmp_path: Path) -> None:
    with serving() as server:
        server.engine.broken = True
        with pytest.raises(openai.InternalServerError):
            text(server)
        assert counts(server)["grist_engine_up"] == 0
        assert counts(server)["grist_requests_total /v1/completions 500"] == 1

"""The reasoning pipeline by batch files: requests are written down, and results read whenever they come, in any order.

The provider is played by the test: it answers what lies in the folder, as the API's output and error files do.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import reasonings
from solving import RECIPE, answers, family, number_of, solved
from strange_server import completion, strange

from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.reason.roll_out import BatchesWait
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.generate.engines import batch
from gristmill.stages.generate.engines.batch import BatchEngine, BatchWaits
from gristmill.stages.generate.engines.endpoint import BadEndpoint, Endpoint
from gristmill.stages.generate.engines.protocol import Ask, Draws
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete

COUNT = 8


@pytest.fixture
def file(tmp_path):
    return reasonings.lines(tmp_path / "problems.jsonl", [reasonings.problem(i) for i in range(COUNT)])


def run(store, file, folder, url="", **recipe):
    """By batch files in `folder`; None: by a server at `url`."""
    endpoint = {"prompt_price": 1.0, "answer_price": 2.0, "most_bytes": 4096}
    endpoint |= {"url": url} if folder is None else {"batch_folder": str(folder)}
    config = reasonings.config([file], run={"hosts": {"endpoint": endpoint}}, **RECIPE | recipe)
    return run_pipeline(config, store, Runner(store, workers=0))


class Provider:
    """Answers the request files that it has not seen. `fault`: custom_id and body -> a line in place of an answer;
    `MISSING`: none at all."""

    MISSING = object()

    def __init__(self, folder: Path, fault=lambda custom_id, body: None) -> None:
        self.folder, self.fault = folder, fault
        self.seen: set[Path] = set()
        self.requests: list[dict] = []

    def answer(self) -> None:
        """One output and one error file, in another order than that of the requests."""
        output, errors = [], []
        for path in sorted(set(self.folder.glob("requests-*.jsonl")) - self.seen):
            self.seen.add(path)
            for line in path.read_text().splitlines():
                request = json.loads(line)
                assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
                self.requests.append(request)
                given = self.fault(request["custom_id"], request["body"])
                if given is None:
                    whole = completion(request["body"], solved(request["body"]))
                    response = {"status_code": 200, "request_id": "r", "body": whole}
                    row = {"id": "b", "custom_id": request["custom_id"], "response": response, "error": None}
                    output.append(json.dumps(row))
                elif given is not self.MISSING:
                    errors.append(given if isinstance(given, str) else json.dumps(given))
        for name, lines in (("output", output), ("error", errors)):
            random.Random(0).shuffle(lines)
            (self.folder / "results" / f"{name}-{len(self.seen)}.jsonl").write_text("".join(f"{li}\n" for li in lines))


def finished(store, file, provider, **recipe):
    """Runs and answers by turns until there is a version. -> how often it waited."""
    waited = 0
    while True:
        try:
            run(store, file, provider.folder, **recipe)
            return waited
        except BatchesWait:
            provider.answer()
            waited += 1
            assert waited < 9


def test_a_run_waits_for_results_and_goes_on_with_them(store, file, tmp_path):
    folder = tmp_path / "batch"
    with pytest.raises(
        BatchesWait, match=r"(?s)16 requests wait for their results:\n.*requests-.*batch/results"
    ) as waits:
        run(store, file, folder)
    assert isinstance(waits.value, Incomplete), "exit code 5"
    written = sorted(folder.glob("requests-*.jsonl"))
    assert len(written) == 3 and sorted(map(str, written)) == sorted(waits.value.files), "one a piece of work"
    before = {path: path.read_bytes() for path in written}
    with pytest.raises(BatchesWait):
        run(store, file, folder)
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before, "the same requests, and no others"
    provider = Provider(folder)
    assert finished(store, file, provider) >= 1
    ids = [request["custom_id"] for request in provider.requests]
    assert len(ids) == len(set(ids)) and max(map(len, ids)) <= 64


def test_batches_come_to_what_a_server_with_the_same_answers_comes_to(store, file, tmp_path):
    finished(store, file, Provider(tmp_path / "batch"), dataset="batched")
    with strange(answers) as server:
        run(store, file, None, server.url, dataset="live")
    batched, live = (family(store, name)[1] for name in ("batched", "live"))
    assert batched == live
    statistics = reasonings.latest(store, "batched.rollouts").statistics["rollouts"]
    assert statistics["cost"] == (statistics["prompt_tokens"] + 2 * statistics["tokens"]) / 1e6 > 0


def refused(status: int):
    """The line of a request that a provider refused."""
    body = {"error": {"message": "The model `writer` does not exist"}}
    return lambda custom_id, _: {
        "custom_id": custom_id,
        "response": {"status_code": status, "body": body},
        "error": None,
    }


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_provider_that_refuses_all_ends_the_run_and_costs_no_sample(store, file, tmp_path, status):
    provider = Provider(tmp_path / "batch", refused(status))
    with pytest.raises(BatchesWait):
        run(store, file, provider.folder)
    provider.answer()
    written = sorted(provider.folder.glob("requests-*.jsonl"))
    with pytest.raises(BadConfig, match=rf"run\.hosts\.endpoint: .*refused all 16 requests \(HTTP {status}: The model"):
        run(store, file, provider.folder)
    assert sorted(provider.folder.glob("requests-*.jsonl")) == written
    provider.seen.clear()  # the same files once more, with another key
    provider.fault = lambda custom_id, body: None
    provider.answer()
    finished(store, file, provider)
    _, rows = family(store)
    assert {row["attempt"] for row in rows} == {1} and not any("engine" in (row["reason"] or "") for row in rows)


def test_a_request_that_is_refused_beside_answers_is_asked_once_more(store, file, tmp_path):
    once: set[str] = set()

    def fault(custom_id, body):
        sample = custom_id.rsplit("/", 2)[0]
        if number_of(body) or sample in once:
            return None
        once.add(sample)
        return refused(404)(custom_id, body)

    finished(store, file, Provider(tmp_path / "batch", fault), scan={"chunk_records": COUNT})
    _, rows = family(store)
    assert once and all(row["attempt"] == 2 for row in rows if row["number"] == 0)
    assert not any("engine" in (row["reason"] or "") for row in rows)


def test_what_came_back_failed_or_not_at_all_is_in_the_ledger_and_asked_once_more(store, file, tmp_path):
    def error(status: int | None, code: str = ""):
        def line(custom_id, body):
            response = {"status_code": status, "body": {"error": {"message": code}}} if status else None
            return {"custom_id": custom_id, "response": response, "error": None if status else {"code": code}}

        return line

    faults = {
        0: error(500),
        1: error(429, "\udfff"),
        2: error(None, "batch_expired"),
        3: lambda custom_id, body: Provider.MISSING,
        4: lambda custom_id, body: f'{{"custom_id": "{custom_id}", "resp',
        5: error(400, "bad temperature \ud800"),
        6: lambda custom_id, body: json.dumps({"custom_id": custom_id, "response": "x" * 5000}),
    }
    names = ["server_error", "rate_limited", "timeout", "unanswered", "unanswered", "refused", "unanswered"]
    provider = Provider(tmp_path / "batch", lambda i, body: faults.get(number_of(body), lambda *_: None)(i, body))
    # A problem without any answer in its piece would only wait: pieces are of all problems.
    finished(store, file, provider, scan={"chunk_records": COUNT})
    _, rows = family(store)
    for number, name in enumerate(names):
        own = {(r["verdict"], r["reason"], r["attempt"]) for r in rows if r["number"] == number}
        assert own == {("undecided", f"engine.{name}", 1 if name == "refused" else 2)}
    assert {r["verdict"] for r in rows if r["number"] == 7} <= {"accepted", "rejected"}
    asked = Counter(re.sub(r"/[^/]*/[^/]*$", "", request["custom_id"]) for request in provider.requests)
    lost = {f"{r['parent_id']}/{r['sample']}" for r in rows if r["attempt"] == 2}
    assert {sample for sample, times in asked.items() if times == 2} == lost


def test_a_later_answer_to_the_same_request_counts_and_one_to_another_is_nobodys(store, file, tmp_path):
    folder = tmp_path / "batch"
    with pytest.raises(BatchesWait):
        run(store, file, folder)
    requests = [json.loads(line) for path in folder.glob("requests-*") for line in path.read_text().splitlines()]
    failed = [{"custom_id": r["custom_id"], "response": None, "error": {"code": "batch_expired"}} for r in requests]
    other = [{"custom_id": f"{r['custom_id'][:-1]}x", "response": {"status_code": 200, "body": {}}} for r in requests]
    reasonings.lines(folder / "results" / "a.jsonl", [*failed, *other, b"no line"])
    Provider(folder).answer()  # output-3.jsonl: read after the failures
    finished(store, file, Provider(folder))
    assert {row["attempt"] for row in family(store)[1]} == {1}


def test_a_piece_waits_for_all_of_its_files(store, file, tmp_path, monkeypatch):
    """A file that is still with the provider lost nothing: none of its requests is asked again."""
    monkeypatch.setattr(batch, "MOST_REQUESTS", 5)
    folder, whole = tmp_path / "batch", {"scan": {"chunk_records": COUNT}}
    with pytest.raises(BatchesWait) as first:
        run(store, file, folder, **whole)
    late = Path(first.value.files[0])
    provider = Provider(folder)
    provider.seen = {late}
    provider.answer()
    with pytest.raises(BatchesWait, match="5 requests wait") as second:
        run(store, file, folder, **whole)
    assert len(first.value.files) == 4 and second.value.files == (str(late),)
    provider.seen = provider.seen - {late} | {folder / "another", folder / "name"}  # the number of its results
    finished(store, file, provider, **whole)
    assert {row["attempt"] for row in family(store)[1]} == {1}


@pytest.mark.parametrize("change", ["other", "shorter", "gone"])
def test_results_that_change_while_they_are_read_are_no_results(tmp_path, change):
    endpoint = Endpoint(batch_folder=str(tmp_path))
    asks = [Ask(name, (0,), f"Of {name}?") for name in "ab"]
    with pytest.raises(BatchWaits) as waits:
        list(BatchEngine(endpoint, "tiny", Draws()).generate(asks))
    requests = [json.loads(line) for line in Path(waits.value.files[0]).read_text().splitlines()]
    rows = [
        {"custom_id": r["custom_id"], "response": {"status_code": 200, "body": completion(r["body"], "4")}}
        for r in requests
    ]
    path = tmp_path / "results" / "output.jsonl"
    reasonings.lines(path, rows)
    engine = BatchEngine(endpoint, "tiny", Draws())
    if change == "gone":
        path.unlink()
    else:
        reasonings.lines(path, rows[::-1] if change == "other" else [b""])
    with pytest.raises(BadEndpoint, match=r"output\.jsonl is another file than it was"):
        list(engine.generate(asks))


def test_another_prompt_is_another_request(store, file, tmp_path):
    provider = Provider(tmp_path / "batch")
    finished(store, file, provider)
    asked = len(provider.requests)
    with pytest.raises(BatchesWait):
        run(store, file, provider.folder, dataset="other", prompt={"template": "Think. {question}"})
    provider.answer()
    new = {request["custom_id"] for request in provider.requests[asked:]}
    assert len(new) == 2 * COUNT and new.isdisjoint(r["custom_id"] for r in provider.requests[:asked])

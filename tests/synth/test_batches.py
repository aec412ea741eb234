"""Lines of batch files: what is written, and what foreign lines come to."""

from __future__ import annotations

import json

import pytest

from gristmill.synth.batches import Result, request_line, result_of


def test_a_request_is_a_line_as_the_api_takes_it():
    line = request_line("p/0/0/ab", {"model": "m", "messages": [{"role": "user", "content": "two\nlines, ü"}]})
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    body = {"model": "m", "messages": [{"role": "user", "content": "two\nlines, ü"}]}
    assert json.loads(line) == {"custom_id": "p/0/0/ab", "method": "POST", "url": "/v1/chat/completions", "body": body}


@pytest.mark.parametrize("custom_id", ["", "x" * 65])
def test_an_id_that_a_provider_would_refuse_is_refused(custom_id):
    with pytest.raises(ValueError, match=r"custom_id of \d+ characters: 1 to 64"):
        request_line(custom_id, {})


def test_results_are_answers_refusals_and_errors_of_the_batch():
    good = {"custom_id": "a", "response": {"status_code": 200, "body": {"choices": []}}, "error": None}
    assert (
        result_of(json.dumps(good).encode()) == Result("a", 200, b'{"choices": []}')
        and result_of(json.dumps(good).encode()).answered
    )
    refused = {"custom_id": "b", "response": {"status_code": 400, "body": {"error": {"message": "no"}}}}
    assert result_of(json.dumps(refused).encode()) == Result("b", 400, b'{"error": {"message": "no"}}')
    expired = {"custom_id": "c", "response": None, "error": {"code": "batch_expired", "message": "too late"}}
    assert result_of(json.dumps(expired).encode()) == Result("c", None, b"", "batch_expired")
    assert result_of(b'{"custom_id": "d"}') == Result("d", None, b"", "no_response")


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"7", b'{"custom_id": 3}', b'{"id": "a"}', b"\xff", b"[" * 200_000])
def test_a_line_that_is_no_result_is_a_value_error(line):
    with pytest.raises(ValueError):
        result_of(line)

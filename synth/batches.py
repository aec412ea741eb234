"""Batch files as OpenAI's API takes them: a request a line, and a line for each in the output or error file that comes
back, in any order, known by its `custom_id`.

Pure formatting: who asks for what, and what becomes of an answer, is not known here. Lines that come back are foreign:
each is parsed once, and is a result or a ValueError. Source: the batch request input and request output objects of
OpenAI's API reference, which vLLM (`run-batch`) and other providers read and write as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

URL = "/v1/chat/completions"
MOST_REQUESTS = 50_000
"""Of a file, as OpenAI bounds it."""
MOST_BYTES = 190_000_000
"""Of a file; OpenAI takes 200 MB."""
LONGEST_ID = 64
"""Characters of a `custom_id`; the tightest bound that a provider is known to have."""


@dataclass(frozen=True)
class Result:
    """A line that came back. `status`: of the HTTP response to the request, None where there was none: then `error` has
    the batch's own code, such as `batch_expired`. `body`: of the response, a JSON document."""

    custom_id: str
    status: int | None
    body: bytes
    error: str | None = None

    @property
    def answered(self) -> bool:
        """Whether the server answered it as it should."""
        return self.status == 200


def request_line(custom_id: str, body: Mapping[str, Any]) -> bytes:
    """A request with its line end. Raises ValueError for an id that is too long."""
    if not 0 < len(custom_id) <= LONGEST_ID:
        raise ValueError(f"custom_id of {len(custom_id)} characters: 1 to {LONGEST_ID}")
    request = {"custom_id": custom_id, "method": "POST", "url": URL, "body": dict(body)}
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def result_of(line: bytes) -> Result:
    """What a line says. Raises ValueError for one that is no result."""
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
        raise ValueError("no JSON object with a custom_id")
    response, error = row.get("response"), row.get("error")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        return Result(row["custom_id"], response["status_code"], json.dumps(response.get("body")).encode())
    code = error.get("code") if isinstance(error, dict) else None
    return Result(row["custom_id"], None, b"", str(code) if code else "no_response")

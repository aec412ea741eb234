"""What Ray's job server and Prefect's API say about themselves, over HTTP and without importing either.

`grist status` must answer at once, and must be able to say what is wrong where an import of Prefect takes seconds and
a client library raises five kinds of errors. Only documented REST calls are used. Everything that can go wrong with
an answer is `Unreachable`, whose message names the address.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

LIVE = ("PENDING", "RUNNING")
"""States of a Ray job that has not ended."""


class Unreachable(OSError):
    """No answer, or none that can be used."""


@dataclass(frozen=True)
class Server:
    """A server's address and how to greet it. The secret stays out of every representation."""

    url: str
    authorization: str = field(default="", repr=False)

    @classmethod
    def with_token(cls, url: str, token: str) -> Server:
        """One that wants a bearer token, as Ray's job server does; "" for none."""
        return cls(url, f"Bearer {token}" if token else "")

    @classmethod
    def with_password(cls, url: str, user_and_password: str) -> Server:
        """One that wants basic authentication with "user:password", as Prefect's does; "" for none."""
        text = base64.b64encode(user_and_password.encode()).decode()
        return cls(url, f"Basic {text}" if user_and_password else "")

    def ask(self, path: str, body: Any = None, timeout: float = 5) -> Any:
        """The JSON answer to GET, or to POST where there is a body. Raises Unreachable."""
        headers = {"Content-Type": "application/json"}
        if self.authorization:
            headers["Authorization"] = self.authorization
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers)
        # never through a proxy of the environment: these are addresses of this machine
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for pause in (1, 2, None):
            try:
                with opener.open(request, timeout=timeout) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                with error:
                    if error.code != 503 or pause is None:
                        raise Unreachable(f"{self.url}{path}: HTTP {error.code} {error.reason}") from None
                time.sleep(pause)  # Prefect's way to say that SQLite is busy: ask again
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Unreachable(f"{self.url}{path}: {getattr(error, 'reason', error)}") from None


def live_jobs(ray: Server) -> list[dict[str, Any]]:
    """Submitted jobs that have not ended. Raises Unreachable."""
    jobs = ray.ask("/api/jobs/")
    return [job for job in jobs if job.get("type") == "SUBMISSION" and job.get("status") in LIVE]


def workers(prefect: Server, pool: str) -> list[dict[str, Any]]:
    """The pool's workers, each with `name`, `status` and `last_heartbeat_time`. Raises Unreachable."""
    return list(prefect.ask(f"/work_pools/{pool}/workers/filter", {}))


def deployments(prefect: Server, pool: str) -> list[dict[str, Any]]:
    """The deployments on this pool. Raises Unreachable."""
    query = {"work_pools": {"name": {"any_": [pool]}}}
    return list(prefect.ask("/deployments/filter", query))


def next_runs(prefect: Server, deployment_ids: list[str], limit: int = 5) -> list[dict[str, Any]]:
    """Scheduled flow runs of these deployments, soonest first. Raises Unreachable."""
    if not deployment_ids:
        return []
    query = {
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "deployment_id": {"any_": deployment_ids}},
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": limit,
    }
    return list(prefect.ask("/flow_runs/filter", query))


def age(moment: str) -> float:
    """Seconds since a moment as Prefect writes it; negative if it is still to come."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()

"""A Prefect server without Prefect: what it is asked, and what it answers."""

from __future__ import annotations

from typing import Any


class Server:
    """`answers`: by path, with `_` for `/`; called with the body where they can be. `asked`: (path, body)."""

    url = "http://prefect/api"

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, list[tuple[str, Any]]()

    def ask(self, path: str, body: Any = None, timeout: float = 5) -> Any:
        """As `health.Server`."""
        self.asked.append((path, body))
        answer = self.answers[path.strip("/").replace("/", "_")]
        return answer(body) if callable(answer) else answer


class Events(Server):
    """One that keeps events. `seen`: their ids."""

    def __init__(self) -> None:
        self.seen = list[str]()
        super().__init__(
            events_filter=lambda body: {"total": sum(id in self.seen for id in body["filter"]["id"]["id"])},
            events=lambda events: self.seen.extend(event["id"] for event in events),
        )

    @property
    def versions(self) -> list[str]:
        """That events told of, in order."""
        posted = (body for path, body in self.asked if path == "/events")
        return [event["resource"]["gristmill.version"] for events in posted for event in events]

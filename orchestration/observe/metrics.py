"""Counts of a server in Prometheus' text format: requests, tokens, times, and how full the engine is.

Labels have few values whatever clients send: a path that no endpoint has is `other`. A histogram of the time to the
first token starts when the request's headers are in, so that reading it, waiting for a slot and computing the prompt
are part of it. Each server has a registry of its own.
Source: Prometheus, exposition formats and naming (https://prometheus.io/docs/practices/naming).
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts of one server. Counters are added to by whoever serves; `watch` names what is asked when it is read."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter(
            "grist_requests", "Requests that ended, by endpoint.", ["route", "status"], registry=own
        )
        self.in_flight = Gauge("grist_requests_in_flight", "Requests that have not ended.", registry=own)
        self.seconds = Histogram(
            "grist_request_seconds", "From headers to the end of the answer.", ["route"], buckets=_SECONDS, registry=own
        )
        self.first_token = Histogram(
            "grist_time_to_first_token_seconds",
            "From headers to the first token.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self.prompt_tokens = Counter("grist_prompt_tokens", "Tokens of prompts that the engine took.", registry=own)
        self.generated_tokens = Counter("grist_generated_tokens", "Tokens that the engine generated.", registry=own)

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """A gauge whose value is asked for at each reading."""
        Gauge(name, about, registry=self._registry).set_function(value)

    def exposed(self, accept: str) -> tuple[bytes, str]:
        """(body, its type) of an answer. `accept`: the header of the request, which may ask for OpenMetrics."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind

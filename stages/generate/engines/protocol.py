"""Engines: what samples are asked of, whoever hosts the model. One protocol: `generate(asks)`, a stream of Generations.

A sample that could not be had is a Generation with a `failure`, never an empty answer: an answer is judged, a failure
is tried again. An engine is called from several threads at once, so that the pieces of work that a worker does side by
side share it, and its slots are not empty while one of them comes to its end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Literal, Protocol, get_args

Failure = Literal[
    "timeout",  # no answer in time
    "unreachable",  # no connection, or one that broke before an answer began
    "rate_limited",  # 429, after all retries
    "server_error",  # 5xx, after all retries
    "half_body",  # an answer that broke off
    "garbage",  # an answer that is none of this protocol
    "no_choice",  # fewer answers than were asked for
    "unanswered",  # a batch came back without it
    "refused",  # 4xx: this request, not this moment
    "too_long",  # prompt and answer do not fit the engine's context
]
FAILURES: tuple[Failure, ...] = get_args(Failure)
LASTING: frozenset[Failure] = frozenset(("refused", "too_long"))
"""Failures that another attempt would meet again."""
Finish = Literal["stop", "length"]
"""An answer that ended by itself, or one that was cut at `max_tokens`."""


@dataclass(frozen=True)
class Draws:
    """How answers are drawn. `seed` names the run: with a problem and the number of a sample it decides that sample."""

    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens}: 1 or more")
        if not 0 < self.temperature <= 2:
            raise ValueError(f"temperature={self.temperature}: above 0, to 2: at 0 all samples of a problem are one")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: above 0, to 1")
        if not all(self.stop):
            raise ValueError(f"stop={list(self.stop)}: texts that are not empty")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: 0 or more")

    def key(self, problem: str) -> str:
        """What the random numbers of a problem's samples are named by, beside the number of each."""
        return f"{self.seed}/{problem}"

    def number(self, problem: str, sample: int) -> int:
        """The seed of a sample for a server, 31 bits: what every server takes."""
        digest = hashlib.blake2b(f"{self.key(problem)}\0{sample}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Ask:
    """The samples of a problem that are wanted, by number. `prompt`: what the user says; `system`: what stands before
    it, None: nothing. `attempt`: how often these were lost before."""

    problem: str
    samples: tuple[int, ...]
    prompt: str
    system: str | None = None
    attempt: int = 0

    def runs(self) -> Iterator[tuple[int, int]]:
        """(first, count) of consecutive numbers."""
        for _, run in groupby(enumerate(sorted(self.samples)), key=lambda pair: pair[1] - pair[0]):
            numbers = [number for _, number in run]
            yield numbers[0], len(numbers)


@dataclass(frozen=True)
class Generation:
    """A sample, or why there is none. `tokens` of the answer, `prompt_tokens` before it; None: the engine does not say.

    `detail`: of a failure, in one line that quotes neither problem nor key. `requests`: how often it was asked for.
    """

    problem: str
    sample: int
    text: str | None = None
    finish: Finish | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    failure: Failure | None = None
    detail: str | None = None
    requests: int = 1

    def __post_init__(self) -> None:
        if (self.failure is None) == (self.text is None or self.finish is None):
            raise ValueError(f"sample {self.sample}: either a text that ended somehow, or a failure")


@dataclass(frozen=True)
class Load:
    """How full an engine was: its `steps`, the slots that there were in all of them together, `places`, and those that
    were `held` by a sample; seconds in which it made steps, and in which it `waited` between two requests."""

    steps: int = 0
    places: int = 0
    held: int = 0
    worked: float = 0.0
    waited: float = 0.0

    def __add__(self, other: Load) -> Load:
        names = [item.name for item in fields(self)]
        return Load(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def busy(self) -> float | None:
        """The share of its slots that was held over the time of generation; None: it made no step."""
        if not self.steps:
            return None
        return self.held / self.places * (self.worked / (self.worked + self.waited) if self.worked else 1.0)


def chat_body(model: str, draws: Draws, ask: Ask, n: int = 1, **more: Any) -> dict[str, Any]:
    """A request of OpenAI's chat completions for the first of these samples, or for `n` from it on."""
    messages = [{"role": "user", "content": ask.prompt}]
    if ask.system is not None:
        messages.insert(0, {"role": "system", "content": ask.system})
    body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": draws.max_tokens}
    body |= {"temperature": draws.temperature, "top_p": draws.top_p}
    body |= {"seed": draws.number(ask.problem, ask.samples[0])}
    if draws.stop:
        body["stop"] = list(draws.stop)
    return body | ({"n": n} if n > 1 else {}) | more


class Engine(Protocol):
    """Something that answers. Thread-safe."""

    def generate(self, asks: Iterable[Ask]) -> Iterator[Generation]:
        """Every sample that is asked for, once, in the order in which they are done. What one sample meets is its
        `failure`; an error is raised where no sample can be had any more."""
        ...

    @property
    def about(self) -> str:
        """What answered, for ledgers: a model with its version, a server's model. Never a key or an address."""
        ...

    def load(self) -> Load:
        """How full it was since this was asked last; of a server nothing is known."""
        ...

    def close(self) -> None:
        """Ends it. Whoever still waits for a sample gets an error."""
        ...

"""The engine `openai` by batch files: requests are written down for a provider's batch API, and its results read.

A piece of work with a file of requests that has no result yet writes it to `batch_folder` and raises BatchWaits: the
run goes on with the other pieces and ends as incomplete, and the same command goes on once files with results lie in
the folder's `results`, whatever they are called and however requests were put together. A result is known by its
`custom_id`, which names problem, sample, attempt and the request itself: one of another prompt or model is nobody's.
Which requests came back failed, and which of a file did not come back at all, is a failure of that sample, as a
server's would be. A key or a model that the provider does not know (401, 403, 404) is the operator's to mend where
nothing at all was answered: no sample is charged with it. Beside answers it is that request's, and asked once more.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gristmill.stages.generate.engines.endpoint import BadEndpoint, Endpoint
from gristmill.stages.generate.engines.protocol import Ask, Draws, Generation, Load, chat_body
from gristmill.stages.generate.engines.replies import Failed, Reply, quoted, read_reply
from gristmill.synth.batches import MOST_BYTES, MOST_REQUESTS, Result, request_line, result_of

RESULTS = "results"
"""The folder below `batch_folder` with output and error files of batches."""
_BLOCK = 1 << 20

log = logging.getLogger("gristmill")


class BatchWaits(RuntimeError):
    """Requests that were written down and have no result yet: `requests` in `files`."""

    def __init__(self, requests: int, files: tuple[str, ...]) -> None:
        super().__init__(requests, files)
        self.requests, self.files = requests, files

    def __str__(self) -> str:
        return f"{self.requests:,} requests without results in {', '.join(self.files)}"


class _Place(NamedTuple):
    """Where the line of a result stands; `answered`: by status 200. `refused`: as any request with this key and model
    would be, in the provider's words; None: it was not."""

    file: Path
    start: int
    length: int
    answered: bool
    refused: str | None


class BatchEngine:
    """Answers from files. What lies in `results` is looked through once, here. Raises BadEndpoint for a folder that
    cannot be written to, and for a provider that refused every request."""

    def __init__(self, endpoint: Endpoint, model: str, draws: Draws) -> None:
        self.folder, self.model, self.draws = Path(endpoint.batch_folder), model, draws
        self._most_bytes = endpoint.most_bytes
        try:
            (self.folder / RESULTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadEndpoint(f"batch_folder {self.folder}: {error.strerror}") from None
        self._places: dict[str, _Place] = {}
        for path in sorted((self.folder / RESULTS).iterdir()):
            if path.is_file():
                self._index(path)
        self._check_not_refused()

    @property
    def about(self) -> str:
        """The provider's model."""
        return self.model

    def generate(self, asks: Iterable[Ask]) -> Iterator[Generation]:
        """As `Engine.generate`. Raises BatchWaits where not one request of a file has a result, BadEndpoint where a
        file of results is another than it was."""
        samples: dict[str, Ask] = {}
        lines: dict[str, bytes] = {}
        for ask in asks:
            for sample in ask.samples:
                own = replace(ask, samples=(sample,))
                custom_id, line = self._request(own)
                samples[custom_id], lines[custom_id] = own, line
        waiting = [file for file in _files(lines) if not file.keys() & self._places.keys()]
        if waiting:
            raise BatchWaits(sum(map(len, waiting)), tuple(self._written(file.values()) for file in waiting))
        for custom_id, ask in samples.items():
            yield self._generation(ask, custom_id)

    def load(self) -> Load:
        """As `Engine.load`."""
        return Load()

    def close(self) -> None:
        """Nothing is held."""

    def _request(self, ask: Ask) -> tuple[str, bytes]:
        body = chat_body(self.model, self.draws, ask)
        digest = hashlib.blake2b(request_line("-", body), digest_size=6).hexdigest()
        custom_id = f"{ask.problem}/{ask.samples[0]}/{ask.attempt}/{digest}"
        return custom_id, request_line(custom_id, body)

    def _generation(self, ask: Ask, custom_id: str) -> Generation:
        (sample,), place = ask.samples, self._places.get(custom_id)
        try:
            if place is None:
                raise Failed("unanswered", "the batch came back without this request")
            reply = _reply(_read(place, custom_id))
            if not reply.choices:
                raise Failed("no_choice", "no answer, and one was asked for")
        except Failed as failed:
            return Generation(ask.problem, sample, failure=failed.failure, detail=failed.detail)
        choice = reply.choices[0]
        return Generation(ask.problem, sample, choice.text, choice.finish, reply.prompt_tokens, reply.tokens)

    def _check_not_refused(self) -> None:
        """Raises BadEndpoint where all results say that the key or the model is unknown."""
        refused = [place for place in self._places.values() if place.refused is not None]
        if refused and len(refused) == len(self._places):
            raise BadEndpoint(
                f"the provider refused all {len(refused):,} requests ({refused[0].refused}; the first in"
                f" {refused[0].file}). Give it the same files of {self.folder} again, with a key that may use the model"
                f" {self.model}, and put what comes back beside these results; for another model set"
                " recipe.engine.model"
            )

    def _written(self, lines: Iterable[bytes]) -> str:
        """The file with these requests, written whole or not at all; it is named by what it holds."""
        data = b"".join(lines)
        path = self.folder / f"requests-{hashlib.blake2b(data, digest_size=8).hexdigest()}.jsonl"
        if not path.exists():
            scratch = path.with_suffix(f".{os.getpid()}.tmp")
            scratch.write_bytes(data)
            scratch.replace(path)
        return str(path)

    def _index(self, path: Path) -> None:
        """Notes where each result stands: of several for one request the first that was answered, else the first."""
        unknown = 0
        with path.open("rb") as file:
            for start, line in _lines(file, self._most_bytes):
                try:
                    result = result_of(line)
                except ValueError:
                    unknown += bool(line.strip())
                    continue
                before = self._places.get(result.custom_id)
                if before is None or (result.answered and not before.answered):
                    place = _Place(path, start, len(line), result.answered, _refused(result))
                    self._places[result.custom_id] = place
        if unknown:
            log.warning("%s: %d lines are no results, and whose they are is not known", path, unknown)


def _lines(file: BinaryIO, most: int) -> Iterator[tuple[int, bytes]]:
    """(start, line) of each; of one that is longer than `most` bytes only the beginning, which is no JSON."""
    start = 0
    while line := file.readline(most):
        yield start, line
        start += len(line)
        while not line.endswith(b"\n") and (line := file.readline(_BLOCK)):
            start += len(line)


def _read(place: _Place, custom_id: str) -> Result:
    """The result that stood there. Raises BadEndpoint where it does no more."""
    try:
        with place.file.open("rb") as file:
            file.seek(place.start)
            result = result_of(file.read(place.length))
    except (OSError, ValueError):
        result = None
    if result is None or result.custom_id != custom_id:
        raise BadEndpoint(f"{place.file} is another file than it was: leave results as they are, and run again")
    return result


def _refused(result: Result) -> str | None:
    """How the provider refused all that it was sent with this key and for this model; None: it did not."""
    try:
        if result.status is not None and not result.answered:
            read_reply(result.status, {}, result.body)
    except Failed as failed:
        return failed.detail if failed.everyone else None
    return None


def _reply(result: Result) -> Reply:
    """The answers of a result. Raises Failed."""
    if words := _refused(result):
        raise Failed("server_error", f"{words}, while others were answered")
    if result.status is not None:
        return read_reply(result.status, {}, result.body)
    if result.error == "batch_expired":
        raise Failed("timeout", "the batch expired before this request")
    raise Failed("server_error", f"no response: {quoted(str(result.error))}")


def _files(lines: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """The requests of as many files as the bounds of a batch ask for, by `custom_id`."""
    file: dict[str, bytes] = {}
    size = 0
    for custom_id, line in lines.items():
        if file and (len(file) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
            yield file
            file, size = {}, 0
        file[custom_id] = line
        size += len(line)
    if file:
        yield file

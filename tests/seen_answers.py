"""What a model says of pictures that it has never seen, and how much of it is right: for `make learn`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table
from gristmill.lake.versions.versions import Versions
from gristmill.model.generate.engine import Engine
from gristmill.model.generate.requests import Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.processing.segments import Segment
from gristmill.model.windows.prompts import Medium, Prompts, cut_of
from gristmill.stages.models.model_versions import load_model
from gristmill.synth.scenes.things import COLOURS, SHAPES

_ASSISTANT, _END = "<|assistant|>", "<|end|>"
_NAMES = {*COLOURS, *SHAPES}
_CROPS = 4
"""Of a picture, as the mixtures of `train-vision-nano` cut them."""


class Answer(NamedTuple):
    """`kind`: of the question, `caption` where nothing is asked."""

    kind: str
    expected: str
    given: str


@dataclass(frozen=True)
class Right:
    """Shares of what is right: whole answers; digits; colours and shapes; and whole answers by kind. Words count at
    their place in the answer. None: there are none."""

    items: int
    exact: float
    digits: float | None
    colour_shape: float | None
    kinds: dict[str, float]

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Right:
        """Counted on answers, of which there are some."""
        kinds = sorted({answer.kind for answer in answers})
        return cls(
            len(answers),
            _exact(answers),
            _words(answers, str.isdigit),
            _words(answers, _NAMES.__contains__),
            {kind: _exact([answer for answer in answers if answer.kind == kind]) for kind in kinds},
        )


def answers(store: Store, model: str, data: str) -> list[Answer]:
    """To every record of a version, without chance."""
    loaded = load_model(store, model)
    tokenizer = loaded.tokenizer
    assert tokenizer is not None
    prompts = Prompts(tokenizer, cut_of(loaded.model.config, tokenizer, _CROPS))
    asked, requests = list[tuple[str, str]](), list[Request]()
    manifest = Versions(store).resolve(data)
    for row in (row for ref in manifest.shards for row in read_table(store, ref).to_pylist()):
        segments = list(_segments(row))
        start = next(n for n, part in enumerate(segments) if part.special and part.text == _ASSISTANT) + 1
        media = [Medium("image", medium["data"]) for medium in row["media"]]
        prompt = prompts.of(segments[:start], media)
        requests.append(
            Request(str(len(asked)), prompt.tokens, Sampling(max_tokens=24, temperature=0.0), media=prompt.media)
        )
        asked.append((row["source"], segments[start].text))
    engine = Engine(loaded.model, Options(max_num_seqs=64, max_model_len=256, block_size=64))
    end, given = tokenizer.special(_END), dict[str, str]()
    for completion in engine.run(requests):
        given[completion.request.key] = tokenizer.decode([token for token in completion.tokens if token != end])
    return [Answer(kind, expected, given[str(n)]) for n, (kind, expected) in enumerate(asked)]


def _segments(row: dict[str, Any]) -> Iterable[Segment]:
    start = 0
    for part in row["parts"]:
        end = start + part["length"]
        yield Segment(row["text"][start:end], special=part["special"])
        start = end


def _exact(answers: Sequence[Answer]) -> float:
    return round(sum(answer.given == answer.expected for answer in answers) / len(answers), 4)


def _words(answers: Sequence[Answer], counts: Callable[[str], bool]) -> float | None:
    """The share of the words that count, which stand where they are expected."""
    total = right = 0
    for answer in answers:
        given = answer.given.split()
        for place, word in enumerate(answer.expected.split()):
            if counts(word):
                total += 1
                right += place < len(given) and given[place] == word
    return round(right / total, 4) if total else None

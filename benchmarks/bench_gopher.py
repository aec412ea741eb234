"""How much faster are GopherQuality, and all four text filters together, than datatrove's, with the same decisions?

`cold`: ours with an empty memo (datatrove has none to lose). `unseen`: the memo has seen the other half of the
texts, in random order, as in the middle of a run. `warm`: it has seen these very texts. Both judge the same texts;
decisions and reasons are compared in every round. All four: Gopher quality, Gopher repetition, C4, FineWeb, each on the
text as it came; datatrove's go document by document, so that its cache gives the words of a text to three of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa
from datatrove.utils.text import split_into_parts

from benchmarks.datatrove_filters import PAIRS, Verdicts, by_datatrove, by_gristmill
from benchmarks.harness import Arm, Report, Row, contest, require_equal
from benchmarks.material import texts as load_texts
from gristmill.filters.text import measures, words
from gristmill.filters.text.docs import Docs

GOPHER = "gopher_quality"
UNSEEN = ("unseen, first half", "unseen, second half")


def all_by_datatrove(texts: list[str], oracles: Mapping[str, Any]) -> list[Verdicts]:
    """The verdicts of every filter on each text."""
    return [[by_datatrove(name, [text], oracle)[0] for name, oracle in oracles.items()] for text in texts]


def all_by_gristmill(texts: list[str]) -> list[Verdicts]:
    """The verdicts of every filter on each text."""
    docs = Docs(pa.array(texts, pa.string()))
    columns = [pair.own(languages=()).judge(docs).to_pylist() for pair in PAIRS.values()]
    return [list(verdicts) for verdicts in zip(*columns, strict=True)]


def by_ours(texts: list[str]) -> Verdicts:
    """The verdicts of GopherQuality."""
    return by_gristmill(GOPHER, texts)


def knowing(texts: list[str]) -> None:
    """Leaves a memo that has seen these texts and nothing else."""
    words.english_words.cache_clear()
    words.english_words()
    all_by_gristmill(texts)


def arms(texts: list[str], oracles: Mapping[str, Any]) -> dict[str, Arm]:
    """Both, ours with a memo in each of its states; `all: ` before those of all four filters."""
    half = len(texts) // 2
    first, second = texts[:half], texts[half:]
    states = {
        "cold": (texts, []),
        "warm": (texts, texts),
        UNSEEN[0]: (first, second),
        UNSEEN[1]: (second, first),
    }
    quality = oracles[GOPHER]
    contestants = {"datatrove": Arm(lambda: by_datatrove(GOPHER, texts, quality), split_into_parts.cache_clear)}
    contestants["all: datatrove"] = Arm(lambda: all_by_datatrove(texts, oracles), split_into_parts.cache_clear)
    for state, (judged, seen) in states.items():
        contestants[state] = Arm(partial(by_ours, judged), partial(knowing, seen))
        contestants[f"all: {state}"] = Arm(partial(all_by_gristmill, judged), partial(knowing, seen))
    return contestants


def check(outcomes: Mapping[str, Any]) -> None:
    """Raises Differ unless all verdicts are the same."""
    for prefix in ("", "all: "):
        reference = outcomes[f"{prefix}datatrove"]
        for name in ("cold", "warm"):
            require_equal(f"gopher: {prefix}verdicts, datatrove against {name}", reference, outcomes[f"{prefix}{name}"])
        unseen = [verdict for name in UNSEEN for verdict in outcomes[f"{prefix}{name}"]]
        require_equal(f"gopher: {prefix}verdicts, datatrove against unseen", reference, unseen)


def run(tiny: bool) -> Report:
    """The report; `tiny` on generated texts."""
    source, texts = load_texts(tiny)
    random.Random(0).shuffle(texts)
    oracles = {name: pair.oracle() for name, pair in PAIRS.items()}
    all_by_datatrove(["load the tokenizer"], oracles)
    words.english_words()
    measures.kernels()
    rounds = 1 if tiny else 5
    times = contest(arms(texts, oracles), rounds, check)
    same = f"verdict and reason of all {len(texts)} texts"
    rows = []
    for prefix, what in (("", "GopherQuality"), ("all: ", "Gopher quality and repetition, C4, FineWeb")):
        states: dict[str, str | tuple[str, ...]] = {
            "cold": f"{prefix}cold",
            "unseen": tuple(f"{prefix}{name}" for name in UNSEEN),
            "warm": f"{prefix}warm",
        }
        for state, arm in states.items():
            ratio = times.ratio(f"{prefix}datatrove", arm)
            rows.append(Row(f"{what} ({state} memo) over datatrove's", ratio, "x", same))
    kept = zip(*times.outcomes["all: datatrove"], strict=True)
    return Report(
        name="gopher",
        data=source,
        rounds=rounds,
        rows=tuple(rows),
        details={
            "texts": len(texts),
            "characters": sum(map(len, texts)),
            "kept": {name: verdicts.count(None) for name, verdicts in zip(PAIRS, kept, strict=True)},
            "mismatches": 0,
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
        },
    )

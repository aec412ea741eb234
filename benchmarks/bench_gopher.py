"""How much faster is GopherQuality than datatrove's GopherQualityFilter, with the same decisions?

`cold`: ours with an empty memo (datatrove has none to lose). `unseen`: the memo has seen the other half of the
texts, in random order, as in the middle of a run. `warm`: it has seen these very texts. Both judge the same texts;
decisions and reasons are compared in every round.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.utils.text import split_into_parts

from benchmarks.harness import Arm, Report, Row, contest, require_equal
from benchmarks.material import texts as load_texts
from gristmill.filters.gopher import GopherQuality
from gristmill.filters.text import words
from gristmill.filters.text.docs import Docs

REASONS = {
    "gopher_short_doc": "too_few_words",
    "gopher_long_doc": "too_many_words",
    "gopher_below_avg_threshold": "mean_word_length_low",
    "gopher_above_avg_threshold": "mean_word_length_high",
    "gopher_too_many_hashes": "too_many_hashes",
    "gopher_too_many_ellipsis": "too_many_ellipses",
    "gopher_too_many_bullets": "too_many_bullet_lines",
    "gopher_too_many_end_ellipsis": "too_many_ellipsis_lines",
    "gopher_below_alpha_threshold": "too_few_alpha_words",
    "gopher_enough_stop_words": "too_few_stop_words",
}
UNSEEN = ("unseen, first half", "unseen, second half")


def by_datatrove(texts: list[str], oracle: GopherQualityFilter) -> list[str | None]:
    """Its verdicts under the names of our reasons; None: kept."""
    results = [oracle.filter(Document(text=text, id="0")) for text in texts]
    return [None if result is True else f"gopher_quality.{REASONS[result[1]]}" for result in results]


def by_gristmill(texts: list[str]) -> list[str | None]:
    """Our verdicts; None: kept."""
    verdicts: list[str | None] = GopherQuality(languages=()).judge(Docs(pa.array(texts, pa.string()))).to_pylist()
    return verdicts


def knowing(texts: list[str]) -> None:
    """Leaves a memo that has seen these texts and nothing else."""
    words.english_words.cache_clear()
    by_gristmill(texts)


def arms(texts: list[str], oracle: GopherQualityFilter) -> dict[str, Arm]:
    """Both, ours with a memo in each of its states."""
    half = len(texts) // 2
    first, second = texts[:half], texts[half:]
    return {
        "datatrove": Arm(lambda: by_datatrove(texts, oracle), split_into_parts.cache_clear),
        "cold": Arm(lambda: by_gristmill(texts), partial(knowing, [])),
        "warm": Arm(lambda: by_gristmill(texts), partial(knowing, texts)),
        UNSEEN[0]: Arm(lambda: by_gristmill(first), partial(knowing, second)),
        UNSEEN[1]: Arm(lambda: by_gristmill(second), partial(knowing, first)),
    }


def check(outcomes: Mapping[str, Any]) -> None:
    """Raises Differ unless all verdicts are the same."""
    reference = outcomes["datatrove"]
    for name in ("cold", "warm"):
        require_equal(f"gopher: verdicts, datatrove against ours {name}", reference, outcomes[name])
    require_equal(
        "gopher: verdicts, datatrove against ours unseen", reference, [v for n in UNSEEN for v in outcomes[n]]
    )


def run(tiny: bool) -> Report:
    """The report; `tiny` on generated texts."""
    source, texts = load_texts(tiny)
    random.Random(0).shuffle(texts)
    oracle = GopherQualityFilter()
    by_datatrove(["load the tokenizer"], oracle)
    words.english_words()
    rounds = 1 if tiny else 5
    times = contest(arms(texts, oracle), rounds, check)
    same = f"verdict and reason of all {len(texts)} texts"
    names: dict[str, str | tuple[str, ...]] = {"cold": "cold", "unseen": UNSEEN, "warm": "warm"}
    return Report(
        name="gopher",
        data=source,
        rounds=rounds,
        rows=tuple(
            Row(f"GopherQuality ({name} memo) over datatrove's", times.ratio("datatrove", arm), "x", same)
            for name, arm in names.items()
        ),
        details={
            "texts": len(texts),
            "characters": sum(map(len, texts)),
            "kept": times.outcomes["datatrove"].count(None),
            "mismatches": 0,
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
        },
    )

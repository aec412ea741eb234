"""datatrove's text filters beside ours: the same settings, and its reasons under the names of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

from gristmill.filters.base import Filter
from gristmill.filters.c4 import C4Quality
from gristmill.filters.fineweb import FineWebQuality
from gristmill.filters.gopher import GopherQuality
from gristmill.filters.repetition import DUPLICATED, TOP, GopherRepetition
from gristmill.filters.text.docs import Docs

Verdicts = list[str | None]
"""`<name>.<reason>` of each text, in our names; None: kept."""

QUALITY = {
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
REPETITION = {
    "empty": "empty",
    "dup_para_frac": "repeated_paragraphs",
    "dup_para_char_frac": "repeated_paragraph_chars",
    "dup_line_frac": "repeated_lines",
    "dup_line_char_frac": "repeated_line_chars",
    **{f"top_{n}_gram": f"top_{n}_gram" for n in TOP},
    **{f"duplicated_{n}_n_grams": f"repeated_{n}_grams" for n in DUPLICATED},
}
C4 = {reason: reason for reason in ("lorem_ipsum", "curly_bracket", "too_few_sentences")}
FINEWEB = {
    "empty": "empty",
    "line_punct_ratio": "too_few_ending_lines",
    "short_line_ratio": "too_many_short_lines",
    "char_dup_ratio": "too_many_repeated_chars",
    "list_ratio": "too_many_newlines",
}


class Pair(NamedTuple):
    """A filter of ours, a maker of datatrove's, and its reasons under our names."""

    own: Callable[..., Filter[Docs]]
    oracle: Callable[..., Any]
    reasons: dict[str, str]


PAIRS: dict[str, Pair] = {
    "gopher_quality": Pair(GopherQuality, GopherQualityFilter, QUALITY),
    "gopher_repetition": Pair(GopherRepetition, GopherRepetitionFilter, REPETITION),
    "c4_quality": Pair(C4Quality, C4QualityFilter, C4),
    "fineweb_quality": Pair(FineWebQuality, FineWebQualityFilter, FINEWEB),
}


def by_datatrove(name: str, texts: Sequence[str], oracle: Any = None) -> Verdicts:
    """The verdicts of datatrove's filter, with its defaults unless another `oracle` is given."""
    pair = PAIRS[name]
    oracle = pair.oracle() if oracle is None else oracle
    results = [oracle.filter(Document(text=text, id="0")) for text in texts]
    return [None if result is True else f"{name}.{pair.reasons[result[1]]}" for result in results]


def by_gristmill(name: str, texts: Sequence[str], **thresholds: Any) -> Verdicts:
    """The verdicts of our filter on texts of any language."""
    docs = Docs(pa.array(texts, pa.string()))
    verdicts: Verdicts = PAIRS[name].own(languages=(), **thresholds).judge(docs).to_pylist()
    return verdicts

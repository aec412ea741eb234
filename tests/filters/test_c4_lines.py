"""C4's line removal against datatrove's: the same text, byte for byte, of every document that its filter keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.datatrove_filters import by_gristmill
from benchmarks.pii_pages import documents
from gristmill.filters.edits.c4_lines import C4Lines
from gristmill.filters.text.docs import Docs
from tests.filters.test_datatrove_verdicts import corpus, shared_texts


def by_datatrove(texts: list[str], **settings_there: Any) -> list[str | None]:
    """The text that datatrove's filter leaves, None where it drops the document."""
    oracle = C4QualityFilter(**settings_there)
    left: list[str | None] = []
    for text in texts:
        document = Document(text=text, id="0")
        left.append(document.text if oracle.filter(document) is True else None)
    return left


def by_ours(texts: list[str], min_sentences: int | None = 5, **rules: Any) -> list[str | None]:
    """The text that the edit leaves, None where `c4_quality` drops the document before it."""
    lines = C4Lines(languages=(), **rules).edit(Docs(pa.array(texts, pa.string()))).texts.to_pylist()
    verdicts = by_gristmill("c4_quality", texts, min_sentences=min_sentences, **rules)
    return [line if verdict is None else None for line, verdict in zip(lines, verdicts, strict=True)]


def test_the_same_text_on_generated_texts() -> None:
    texts = corpus(3)
    expected = by_datatrove(texts)
    assert by_ours(texts) == expected
    kept = [(text, left) for text, left in zip(texts, expected, strict=True) if left is not None]
    assert sum(text != left for text, left in kept) > 20


@pytest.mark.parametrize(
    ("rules", "settings_there"),
    [
        ({"terminal_punctuation": False}, {"filter_no_terminal_punct": False}),
        ({"remove_citations": False}, {"remove_citations": False}),
        ({"javascript": False, "policy": False}, {"filter_javascript": False, "filter_policy": False}),
        ({"min_words_per_line": None, "max_word_length": 3}, {"min_words_per_line": -1, "max_word_length": 3}),
        ({"min_words_per_line": 9, "max_word_length": None}, {"min_words_per_line": 9, "max_word_length": -1}),
    ],
    ids=str,
)
def test_the_same_text_with_other_rules(rules: dict[str, Any], settings_there: dict[str, Any]) -> None:
    texts = corpus(5)[:12] + corpus(5)[-400:]
    expected = by_datatrove(texts, min_num_sentences=1, **settings_there)
    assert by_ours(texts, min_sentences=1, **rules) == expected


@settings(max_examples=100, derandomize=True)
@given(st.lists(st.text(st.sampled_from("ab .[1]\n\t\u2028\x1c\u00a0中"), max_size=60), max_size=6))
def test_the_same_text_whatever_the_blanks(texts: list[str]) -> None:
    rules: dict[str, Any] = {"terminal_punctuation": False, "min_words_per_line": None}
    expected = by_datatrove(texts, min_num_sentences=-1, filter_no_terminal_punct=False, min_words_per_line=-1)
    assert by_ours(texts, min_sentences=None, **rules) == expected


def test_the_same_text_on_real_data(shared_data: Path) -> None:
    texts = [*shared_texts(shared_data), *(document.text for document in documents(shared_data))][::3]
    expected = by_datatrove(texts)
    assert by_ours(texts) == expected
    assert sum(left is not None and left != text for text, left in zip(texts, expected, strict=True)) > 130


def test_only_documents_of_its_languages_are_edited() -> None:
    text = "A line that ends well.\nand one that does not\n"
    docs = Docs(pa.array([text] * 3), languages=pa.array(["en", "de", None]))
    done = C4Lines().edit(docs)
    assert done.texts.to_pylist() == ["A line that ends well.", text, text]
    assert done.counts.to_pydict() == {"lines": [1, 0, 0]}
    with pytest.raises(ValueError, match="no language labels"):
        C4Lines().edit(Docs(pa.array([text])))
    nothing = C4Lines().edit(Docs(pa.array([], pa.string()), languages=pa.array([], pa.string())))
    assert len(nothing.texts) == 0 and nothing.counts.schema.names == ["lines"]

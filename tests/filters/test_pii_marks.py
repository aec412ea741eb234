"""Personal data on real texts, against marks that were set by reading them, and the scoring itself."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from benchmarks.bench_pii import found_in
from benchmarks.pii_pages import DISGUISED, Document, Mark, Score, documents, marked, scores, span_digest, whole_text

KINDS = {"email": 103, DISGUISED: 40, "phone": 270, "iban": 4, "ip": 2}
FLOORS = {"email": (0.99, 0.99), DISGUISED: (0.8, 1.0), "phone": (0.97, 1.0), "iban": (1.0, 1.0), "ip": (1.0, 1.0)}
"""Recall and precision, rounded down, as docs/filters.md has them."""


def test_recall_and_precision_on_real_texts_are_as_documented(shared_data: Path) -> None:
    texts = list(documents(shared_data))
    marks = marked()
    assert {text.digest for text in texts} == marks.keys()
    by_digest = {text.digest: text.text for text in texts}
    for digest, own in marks.items():
        assert all(span_digest(by_digest[digest][mark.start : mark.end]) == mark.digest for mark in own)
    scored = scores(texts, marks, found_in)
    assert {kind: score.marks for kind, score in scored.items()} == KINDS
    short = {
        kind: (score.recall, score.precision)
        for kind, score in scored.items()
        if score.recall < FLOORS[kind][0] or score.precision < FLOORS[kind][1]
    }
    assert short == {}


def test_marks_hold_places_and_no_text() -> None:
    assert sum(map(len, marked().values())) == sum(KINDS.values())
    for own in marked().values():
        assert all(0 <= mark.start < mark.end and len(mark.digest) == 16 for mark in own)
        assert all(first.end <= second.start for first, second in pairwise(own))


def test_scores_count_what_is_covered_and_what_is_right() -> None:
    text = Document("a", "0", "0123456789")
    own = (Mark(0, 3, "phone", ""), Mark(4, 6, "phone", ""), Mark(7, 9, DISGUISED, ""))
    finds = [(0, 3, "phone"), (5, 6, "phone"), (7, 9, "email"), (9, 10, "email"), (3, 4, "ip")]
    scored = scores([text, Document("a", "1", "unread")], {text.digest: own}, lambda _: finds)
    assert scored == {
        "phone": Score(marks=2, finds=2, covered=1, right=2, exact=1),
        DISGUISED: Score(marks=1, finds=1, covered=1, right=1, exact=1),
        "email": Score(marks=0, finds=1, covered=0, right=0, exact=0),
        "ip": Score(marks=0, finds=1, covered=0, right=0, exact=0),
    }
    assert (scored["phone"].recall, scored["phone"].precision, scored["ip"].precision) == (0.5, 1.0, 0.0)


def test_the_whole_text_of_a_page_is_without_tags_and_scripts() -> None:
    page = "<title>A &amp; B</title><script>x@y.z</script><p>Call<b> me</b></p><!-- no --><br>\n\n now"
    assert whole_text(page) == "A & B\nCall me\nnow"

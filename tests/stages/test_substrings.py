"""Repeated substrings: ranges and verdicts by a plain reference, whatever the chunks, ranges and increments."""

from __future__ import annotations

import random

import numpy as np
import pytest
from repeated_runs import N, fates, measured, reference, run, texts_of, write

from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.stages.dedup import pieces
from gristmill.stages.dedup.ranges import in_hex, ranges_of
from gristmill.stages.dedup.substrings import Substrings


@pytest.mark.parametrize("seed", range(3))
def test_ranges_and_verdicts_are_those_of_a_plain_reference(tmp_path, monkeypatch, seed) -> None:
    monkeypatch.setattr(pieces, "ROWS_PER_RANGE", 100)  # several ranges and groups, though texts are few
    monkeypatch.setattr(pieces, "ROWS_PER_GROUP", 150)
    texts = texts_of(random.Random(seed), 40)
    m = run(tmp_path / "lake", [write(tmp_path / "a.jsonl", texts)])
    expected = reference(texts, N)
    assert [ranges for _, ranges in sorted(measured(tmp_path / "lake", m).items())] == expected
    shares = [
        sum(end - start for start, end in ranges) / len(t.split()) for t, ranges in zip(texts, expected, strict=True)
    ]
    dropped = {n for n, share in enumerate(shares) if share > 0.5}
    came = fates(tmp_path / "lake")
    assert {n for n, (reason, _) in came.items() if reason == "substrings.repeated"} == dropped and dropped
    for n in dropped:
        start, end = max(expected[n], key=lambda part: (part[1] - part[0], -part[0]))
        assert came[n][1] == f"{shares[n]:.4g}; words {start} to {end} of {len(texts[n].split())}"


def test_an_increment_is_compared_with_what_came_before(tmp_path) -> None:
    texts = texts_of(random.Random(9), 40)
    first, second = write(tmp_path / "a.jsonl", texts[:20]), write(tmp_path / "b.jsonl", texts[20:])
    grown = tmp_path / "grown"
    run(grown, [first], extends="web")
    m = run(grown, [first, second], extends="web")
    (digest,) = (file.digest for file in m.inputs if file.names[0].endswith("b.jsonl"))
    ranges = [value for key, value in sorted(measured(grown, m).items()) if key[0] == digest]
    assert ranges == reference(texts, N)[20:]
    assert verify(open_store(str(grown)), deep=True) == []


def test_the_same_digest_for_other_ranges_groups_and_chunks(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "a.jsonl", texts_of(random.Random(4), 40))
    digests = {run(tmp_path / "lake", [path]).content_digest}
    monkeypatch.setattr(pieces, "ROWS_PER_RANGE", 64)
    monkeypatch.setattr(pieces, "ROWS_PER_GROUP", 64)
    digests.add(run(tmp_path / "other", [path]).content_digest)
    assert len(digests) == 1


def test_ranges_that_touch_are_one_and_hashes_keep_their_order() -> None:
    covered_by = ranges_of(np.array([1, 0, 1, 1, 3]), np.array([9, 4, 0, 5, 2]), 5)
    assert covered_by.documents.tolist() == [0, 1, 3]
    assert list(zip(covered_by.starts.tolist(), covered_by.ends.tolist(), strict=True)) == [(4, 9), (0, 14), (2, 7)]
    assert covered_by.lists(4).to_pylist()[2] == [] and len(covered_by.lists(4)) == 4
    numbers = np.array([0, 1, 2**63, 2**64 - 1, 0xABCDEF0123456789], np.uint64)
    assert in_hex(numbers).to_pylist() == [f"{number:016x}" for number in numbers.tolist()]
    assert in_hex(numbers[:0]).to_pylist() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_tokens": 0}, "1 to 1024"),
        ({"max_repeated": 2}, "0 to 1"),
        ({"min_words": -1}, "0 or more"),
        ({"repeated": "keep"}, "drop or cut"),
    ],
)
def test_settings_that_are_not_allowed(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Substrings(**settings)

"""Files of fastText's models from strangers: cut, damaged, or asking for more than they hold."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import fast_text_models as models
import numpy as np
import pytest

from gristmill.filters.fast_text import file as files
from gristmill.filters.fast_text.file import read_bytes, read_file
from gristmill.filters.fast_text.model import FastTextModel
from gristmill.filters.fast_text.words import WordTable, check_spread, word_hashes
from gristmill.filters.lid import SHIPPED

PLAIN = [words for _, words in models.sentences(3, seed=1)]


def test_a_file_that_is_cut_anywhere_is_refused() -> None:
    data = models.model_bytes(**models.KINDS["pruned"])
    read_bytes(data)
    for size in (*range(400), *range(400, len(data), 97), len(data) - 1):
        with pytest.raises(ValueError):
            read_bytes(data[:size])
    with pytest.raises(ValueError, match="1 bytes follow its end"):
        read_bytes(data + b"\0")


def test_a_file_with_any_byte_changed_is_refused_or_answers() -> None:
    """Whatever a damaged file says, nothing is made of a size that the file does not have, and no row is missing."""
    data = models.model_bytes(**models.KINDS["pruned"])
    refused = 0
    for place in (*range(150), *range(150, len(data), 499)):
        for value in (0x7F, data[place] ^ 0x81):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            try:
                model = FastTextModel.of(read_bytes(changed))
            except ValueError:
                refused += 1
                continue
            model.best(models.raw(PLAIN), 2)
    assert refused > 100


def patched(data: bytes, place: int, form: str, *values: Any) -> bytes:
    """The bytes with these numbers in place of what stood there."""
    patch = struct.pack("<" + form, *values)
    return data[:place] + patch + data[place + len(patch) :]


DICTIONARY = 8 + 12 * 4 + 8
"""Where a file's dictionary begins."""


@pytest.mark.parametrize(
    ("place", "form", "value", "message"),
    [
        (0, "i", 7, "does not begin as one does"),
        (4, "i", 13, "does not begin as one does"),
        (8, "i", 0, "settings cannot be"),
        (8, "i", 11, "its settings say 11 dimensions"),
        (8 + 5 * 4, "i", 2**30, "settings cannot be"),  # words of an n-gram
        (8 + 6 * 4, "i", 5, "settings cannot be"),  # loss
        (8 + 7 * 4, "i", 1, "vectors of words"),
        (8 + 8 * 4, "i", 0, "settings cannot be"),  # buckets
        (8 + 8 * 4, "i", 2**31 - 1, "cannot be all"),
        (8 + 10 * 4, "i", 2**31 - 1, "settings cannot be"),  # characters of an n-gram
        (DICTIONARY, "i", 2**31 - 1, "it counts"),
        (DICTIONARY + 8, "i", 2**31 - 1, "it counts"),
        (DICTIONARY + 20, "q", 2**62, "it ends after"),  # n-grams that are left
        (DICTIONARY + 20, "q", 0, "pruned and its matrix is not quantised"),
    ],
)
def test_what_a_file_says_is_held_against_what_it_has(place: int, form: str, value: int, message: str) -> None:
    data = models.model_bytes(**models.KINDS["softmax, characters"])
    with pytest.raises(ValueError, match=message):
        read_bytes(patched(data, place, form, value))


def test_numbers_that_are_none_are_refused() -> None:
    data = models.model_bytes(**models.KINDS["softmax, characters"])
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match="none, or infinite"):
            read_bytes(patched(data, len(data) - 4, "f", value))


def test_rows_of_pruned_n_grams_that_are_not_there_are_refused() -> None:
    file = read_bytes(models.model_bytes(**models.KINDS["pruned"]))
    assert file.pruned is not None
    for column, value in ((0, -1), (0, file.settings.buckets), (1, -1), (1, len(file.matrix) - len(file.words))):
        pruned = file.pruned.copy()
        pruned[3, column] = value
        with pytest.raises(ValueError, match="cannot be all"):
            files._check_rows(file._replace(pruned=pruned))


def test_nothing_is_made_of_a_size_that_the_file_does_not_have() -> None:
    """A byte stands for a few columns; without a bound, for as many as the file has kilobytes."""
    data = models.model_bytes(**models.KINDS["pruned"])
    file = read_bytes(data)
    wide = data.replace(struct.pack("<4i", 10, 5, 2, 2), struct.pack("<4i", 10, 1, 10**6, 10))
    assert wide != data
    with pytest.raises(ValueError, match="a quantiser cuts 10 columns in 1 of 1000000 and 10"):
        read_bytes(wide)
    huge = file.settings._replace(buckets=2**31 - 1)
    with pytest.raises(ValueError, match="cannot be all"):
        files._check_rows(file._replace(settings=huge))


def test_an_error_names_the_file(tmp_path: Path) -> None:
    for name, data in (
        ("empty.bin", b""),
        ("text.ftz", b"nothing of the kind"),
        ("cut.ftz", SHIPPED.read_bytes()[:-1]),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} is no fastText model"):
            read_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent.ftz")


def test_a_word_is_found_by_its_bytes() -> None:
    words = [b"", b"a", b"the", "müller".encode(), b"</s>", b"a" * 1000, *(str(n).encode() for n in range(500))]
    assert word_hashes([b"", b"foobar", b"a"]).tolist() == [
        0x811C9DC5,
        0xBF9CF968,
        0xE40C292C,
    ]  # FNV's own test vectors
    table = WordTable.of(words)
    numbers = [number for number in table.slots.tolist() if number >= 0]
    assert sorted(numbers) == list(range(len(words)))
    assert word_hashes([]).shape == (0,) and (WordTable.of([]).slots == -1).all()


def test_words_that_were_chosen_for_their_hashes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of them would take steps in the square of their number, and each look-up as many as there are words."""
    words = [f"word {number}".encode() for number in range(400_000)]
    check_spread(words)
    check_spread([])
    # 1,100 words have a table of 4,096 slots: these want to lie in sixteen of them.
    alike = np.array(words)[(word_hashes(words) & 0xFF0) == 0x550].tolist()[:1100]
    assert len(alike) == 1100
    with pytest.raises(ValueError, match=r"up to 1,0.. places from their hashes"):
        check_spread(alike)
    data = models.model_bytes(**models.KINDS["pruned"])
    read_bytes(data)
    monkeypatch.setattr("gristmill.filters.fast_text.words._FARTHEST", -1)
    with pytest.raises(ValueError, match="places from their hashes"):
        read_bytes(data)

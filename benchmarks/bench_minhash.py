"""How fast is a text's MinHash signature, against datatrove, rensa and datasketch, and does it find as much?

Every contestant makes 112 values of shingles of 5 words, for texts and for a copy of each with some words changed.
`words given`, `shingles given`, `hashes given`: the contestant starts from Python objects that were made outside the
clock; ours starts from the text all the same. Shingle hashes differ between them, so equal work is seen in what
signatures are for: the mean estimated Jaccard of texts and their copies has to agree. datasketch, fed with our
shingles' hashes, has to come to our very bits. Recall is of made-up pairs whose Jaccard is exactly .8.
"""

from __future__ import annotations

import importlib.metadata
import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import datasketch
import numpy as np
import pyarrow as pa
import rensa
from datatrove.utils.text import ngrams, simplify_text

from benchmarks import datatrove_minhash as datatrove
from benchmarks.harness import Arm, Differ, Figure, Report, Row, Times, contest, require_equal
from benchmarks.material import disguised
from benchmarks.material import texts as load_texts
from gristmill.filters.signatures.minhash import MinHash, band_hashes, shingle_hashes, warm
from gristmill.lake.store.objects import scratch

SETTINGS = MinHash()
WIDTH = SETTINGS.bands * SETTINGS.rows
LONG = 100  # words from which on a text counts in the comparison of estimates
TOLERANCE = 0.02  # of mean estimates: words are not the same words everywhere
CHANGED = 0.0233  # of words in a copy: (1 - .0233)^5 of its shingles stay, which is a Jaccard of .8
OURS, DATASKETCH = "gristmill", "datasketch, hashes given"
THEORY = 1 - (1 - 0.8**SETTINGS.rows) ** SETTINGS.bands


class Given(NamedTuple):
    """What the contestants start from, a row a text; every second text is the copy of the one before."""

    texts: list[str]
    arrow: pa.StringArray
    words: list[list[str]]  # datatrove's
    shingles: list[list[str]]  # for rensa
    hashes: list[list[int]]  # ours, for datasketch


def edited(text: str, rng: random.Random) -> str:
    """A copy with some words changed into ones that nobody knows."""
    words = text.split(" ")
    for n in range(len(words)):
        if rng.random() < CHANGED:
            words[n] = "".join(rng.choices("bcdfghjklm", k=9))
    return " ".join(words)


def given(texts: list[str], signer: Any) -> Given:
    """Texts and their edited copies, in every form that a contestant starts from."""
    rng = random.Random(0)
    both = [spelling for text in texts for spelling in (text, edited(text, rng))]
    return Given(
        texts=both,
        arrow=pa.array(both, pa.string()),
        words=[signer.word_tokenizer.word_tokenize(simplify_text(text, signer.config.norm_config)) for text in both],
        shingles=[python_shingles(text) for text in both],
        hashes=[shingle_hashes(text) for text in both],
    )


def python_shingles(text: str) -> list[str]:
    """Shingles as people make them for rensa."""
    words = text.lower().split()
    return [" ".join(words[i : i + 5]) for i in range(len(words) - 4)]


def by_gristmill(texts: pa.StringArray, times: int) -> np.ndarray:
    """uint32 [texts, 112], the last of so many runs."""
    for _ in range(times):
        signed = SETTINGS.sign(texts)
    return signed.values


def by_datatrove(texts: list[str], signer: Any) -> list[list[int]]:
    """From text."""
    return [flat(signer, signer.get_shingles(text)) for text in texts]


def by_datatrove_from_words(texts: Sequence[Sequence[str]], signer: Any) -> list[list[int]]:
    """What `get_shingles` and `get_signature` do after words are split."""
    hashed = signer._hash_func
    rows = ([hashed(" ".join(ngram)) for ngram in ngrams(words, 5)] for words in texts)
    return [flat(signer, np.array(row, dtype=np.uint64).reshape(-1, 1)) for row in rows]


def flat(signer: Any, shingles: np.ndarray) -> list[int]:
    """A signature without its division into bands."""
    bands = signer.get_signature(shingles) if shingles.size else []
    return [value for band in bands for value in band]


def by_rensa(shingles: Iterable[list[str]]) -> list[list[int]]:
    """From shingles."""
    signatures = []
    for words in shingles:
        sketch = rensa.RMinHash(num_perm=WIDTH, seed=1)
        sketch.update(words)
        signatures.append(sketch.digest())
    return signatures


def by_datasketch(hashes: list[list[int]], empty: datasketch.MinHash) -> list[np.ndarray]:
    """From our hashes of shingles."""
    signatures = []
    for row in hashes:
        sketch = empty.copy()  # the permutations are drawn once
        sketch.update_batch(row)
        signatures.append(sketch.hashvalues)
    return signatures


def arms(material: Given, signer: Any, times: int) -> dict[str, Arm]:
    """Every contestant."""
    empty = datasketch.MinHash(num_perm=WIDTH, seed=SETTINGS.seed, scheme="affine32", hashfunc=int)
    return {
        OURS: Arm(lambda: by_gristmill(material.arrow, times)),
        "datatrove": Arm(lambda: by_datatrove(material.texts, signer)),
        "datatrove, words given": Arm(lambda: by_datatrove_from_words(material.words, signer)),
        "rensa": Arm(lambda: by_rensa(map(python_shingles, material.texts))),
        "rensa, shingles given": Arm(lambda: by_rensa(material.shingles)),
        DATASKETCH: Arm(lambda: by_datasketch(material.hashes, empty)),
    }


def check(outcomes: Mapping[str, Any], long: np.ndarray) -> None:
    """Raises Differ unless all contestants came to the same, as far as their hashes let them."""
    signatures = outcomes[OURS]
    require_equal("minhash: bits, ours against datasketch's", as_lists(signatures), as_lists(outcomes[DATASKETCH]))
    for name in ("datatrove", "rensa"):
        again = next(other for other in outcomes if other.startswith(f"{name},"))
        require_equal(f"minhash: {name} against itself, {again}", outcomes[name], outcomes[again])
        noise = (2 * 0.16 / WIDTH / long.sum()) ** 0.5
        apart = abs(mean_estimate(signatures, long) - mean_estimate(outcomes[name], long))
        if apart > TOLERANCE + 3 * noise:
            raise Differ(f"minhash: mean Jaccard of texts and copies, ours against {name}'s: {apart:.3f} apart")


def as_lists(values: Sequence[np.ndarray] | np.ndarray) -> list[list[int]]:
    """Rows as lists of plain numbers."""
    return [row.tolist() for row in values]


def mean_estimate(values: Any, long: np.ndarray) -> float:
    """The mean share of equal values of a text and its copy. long: bool [texts], which count."""
    agree = [np.mean(np.equal(values[2 * n], values[2 * n + 1])) for n in np.flatnonzero(long).tolist()]
    return float(np.mean(agree))


def spellings(texts: list[str]) -> dict[str, pa.StringArray]:
    """The texts in ASCII, with one other character each, and with one in each word."""
    plain = [unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() for text in texts]
    by_name = {
        "ASCII": plain,
        "a non-ASCII character a text": [text + " \u2014" for text in plain],
        "a non-ASCII character a word": [disguised(text) for text in plain],
    }
    return {name: pa.array(spelt, pa.string()) for name, spelt in by_name.items()}


def check_spellings(outcomes: Mapping[str, Any]) -> None:
    """Raises Differ unless all spellings of a text have the same signature."""
    plain, *others = outcomes.values()
    for name, other in zip(list(outcomes)[1:], others, strict=True):
        require_equal(f"minhash: bits, ASCII against {name}", as_lists(plain), as_lists(other))


def pairs(count: int) -> list[list[str]]:
    """Words of `count` pairs of texts that share 160 of 200 shingles, all of them different: Jaccard .8."""
    rng = random.Random(1)
    texts = []
    for _ in range(count):
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(204)]
        texts += [words[:184], words[:164] + words[184:]]
    return texts


def recalls(count: int, signer: Any) -> dict[str, float]:
    """The share of pairs that have a band in common."""
    words = pairs(count)
    signatures = SETTINGS.sign(pa.array([" ".join(text_words) for text_words in words])).values
    values = np.array(by_datatrove_from_words(words, signer), dtype=np.uint64)
    bands = values.reshape(-1, SETTINGS.bands, SETTINGS.rows)
    hashes = band_hashes(signatures, SETTINGS.bands, SETTINGS.rows)
    return {
        "ours": float((hashes[::2] == hashes[1::2]).any(axis=1).mean()),
        "datatrove's": float((bands[::2] == bands[1::2]).all(axis=2).any(axis=1).mean()),
    }


def recall_rows(recall_by_name: Mapping[str, float], count: int) -> list[Row]:
    """Recall of each, and of theory. Raises Differ where one is five standard errors off."""
    error = (THEORY * (1 - THEORY) / count) ** 0.5
    rows = []
    for name, recall in {"in theory": THEORY, **recall_by_name}.items():
        if abs(recall - THEORY) > 5 * error:
            raise Differ(f"minhash: recall {name} is {recall:.3f}, in theory {THEORY:.3f} +- {error:.3f}")
        spread = Figure(100 * recall, 100 * (recall - error), 100 * (recall + error))
        rows.append(Row(f"recall at Jaccard .8, {name}", spread, "%", f"{count} pairs"))
    return rows


def speed_rows(times: Times, repeats: int, texts: int, size: int) -> list[Row]:
    """The figures against the others."""
    alike, bits = f"{texts} texts; estimated Jaccard of copies", f"{texts} texts; all bits of {WIDTH} values"
    rows = [
        Row(
            f"signature over {name}",
            Figure(*(repeats * ratio for ratio in times.ratio(name, OURS))),
            "x",
            bits if name == DATASKETCH else alike,
        )
        for name in times.cpu
        if name != OURS
    ]
    return [*rows, Row("signature, UTF-8 text of the web, a CPU-second", speed(times, OURS, repeats * size), "MB/s")]


def speed(times: Times, arm: str, size: int) -> Figure:
    """MB of text a CPU-second."""
    seconds = times.seconds(arm)
    return Figure(*(size / 1e6 / taken for taken in (seconds.median, seconds.high, seconds.low)))


def spelling_rows(times: Times, by_name: Mapping[str, pa.StringArray], repeats: int) -> list[Row]:
    """The figures of the spellings."""
    same = "all bits"
    rows = [
        Row(f"signature, {name}", speed(times, name, repeats * by_name[name].buffers()[2].size), "MB/s", same)
        for name in by_name
    ]
    last = list(by_name)[-1]
    return [*rows, Row(f"signature, {last}, costs, times ASCII", times.ratio(last, "ASCII"), "x", same)]


NOTES = (
    "`given`: made outside the clock, for the contestant only; ours always starts from text",
    "datatrove's signature is get_shingles and get_signature, without its files; English words, 64-bit hashes",
    "rensa's words are text.lower().split(), joined in Python; ours fold case, marks and digits in all scripts",
    "same work: hashes differ, so the mean estimated Jaccard of texts and edited copies has to agree within "
    f"{TOLERANCE} and three standard errors; datasketch is fed our shingles' hashes and has to agree in every bit",
    "the spread of a recall is its standard error, of theory's that of as many pairs",
)


def run(tiny: bool) -> Report:
    """The report; `tiny` on a few texts."""
    source, texts = load_texts(tiny)
    rounds, repeats, count = (1, 2, 100) if tiny else (5, 20, 4000)
    texts = texts[:8] if tiny else texts
    warm()
    with scratch() as folder:
        signer = datatrove.signer(folder)
        material = given(texts, signer)
        n_words = SETTINGS.sign(material.arrow).n_words
        long = (n_words[::2] >= LONG) & (np.array([len(words) >= LONG for words in material.shingles])[::2])
        times = contest(arms(material, signer, repeats), rounds, partial(check, long=long))
        recall_by_name = recalls(count, signer)
    by_name = spellings(texts)
    turns = {name: Arm(partial(by_gristmill, spelt_texts, repeats)) for name, spelt_texts in by_name.items()}
    spelt = contest(turns, rounds, check_spellings)
    size = sum(len(text.encode()) for text in material.texts)
    rows = speed_rows(times, repeats, len(material.texts), size)
    rows += spelling_rows(spelt, by_name, repeats) + recall_rows(recall_by_name, count)
    return Report(
        name="minhash",
        data=source,
        rounds=rounds,
        rows=tuple(rows),
        notes=NOTES,
        details={
            "texts": len(material.texts),
            "bytes": size,
            "compared_pairs": int(long.sum()),
            "mean_estimates": {name: mean_estimate(signatures, long) for name, signatures in times.outcomes.items()},
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
            "packages": {name: importlib.metadata.version(name) for name in ("datasketch", "numba", "rensa")},
        },
    )

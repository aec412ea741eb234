"""Near-duplicates at a known Jaccard similarity. Notable choices:

- similarity is over 5-grams of lower-cased whitespace words of the body, the unit MinHash signs;
- an edit swaps a word for another of the same slot, so the edited article still reads;
- edits stand five words apart, so each costs five 5-grams and the count can be searched by bisection;
- the measured value is stored in the truth, not the nominal one.
"""

from dataclasses import replace
from functools import cache

from gristmill.synth.articles import Article
from gristmill.synth.draw import Draw
from gristmill.synth.grammar import grammar

NOMINAL = (0.95, 0.9, 0.8, 0.7, 0.5)
_NGRAM = 5


def shingles(text: str, n: int = _NGRAM) -> set[tuple[str, ...]]:
    """The word n-grams of a text."""
    words = text.lower().split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a: str, b: str) -> float:
    """Similarity of two texts' 5-gram sets: 0 to 1; two texts without a 5-gram are 1."""
    left, right = shingles(a), shingles(b)
    union = len(left | right)
    return len(left & right) / union if union else 1.0


@cache
def _swaps() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for name, values in sorted(grammar("en").slots.items()):
        if name in ("tp", "ts", "feel"):
            continue
        single = tuple(v for v in values if v.isalpha())
        for value in single if len(single) > 2 else ():
            table.setdefault(value, tuple(v for v in single if v != value))
    return table


def _vowel(word: str) -> bool:
    return word[:1].lower() in tuple("aeiou")


def _swap(word: str, draw: Draw) -> str | None:
    core = word.strip(".,;:!?\"'()")
    options = [v for v in _swaps().get(core) or _swaps().get(core.lower(), ()) if _vowel(v) == _vowel(core)]
    if not options:
        return None
    new = draw.pick(options)
    return word.replace(core, new[0].upper() + new[1:] if core[0].isupper() else new)


def _edits(article: Article, draw: Draw) -> list[tuple[int, str]]:
    """(word position, new word), five words apart, in the order to apply them."""
    edits: list[tuple[int, str]] = []
    last = -_NGRAM
    for position, word in enumerate(article.text.split()):
        new = _swap(word, draw) if position - last >= _NGRAM else None
        if new is not None:
            edits.append((position, new))
            last = position
    return draw.shuffled(edits)


def _apply(article: Article, edits: list[tuple[int, str]]) -> Article:
    at = dict(edits)
    paragraphs, position = [], 0
    for paragraph in article.paragraphs:
        words = paragraph.split()
        paragraphs.append(" ".join(at.get(position + i, word) for i, word in enumerate(words)))
        position += len(words)
    return replace(article, paragraphs=tuple(paragraphs))


def near_duplicate(article: Article, nominal: float, draw: Draw) -> tuple[Article, float]:
    """An edited English article and its measured Jaccard with the original, near the nominal."""
    if article.language != "en":
        raise ValueError(f"near_duplicate: language {article.language!r}; only 'en' has a swap table")
    edits = _edits(article, draw)
    low, high = 0, len(edits)
    while low < high:  # the fewest edits that reach the nominal value or go below it
        middle = (low + high) // 2
        if jaccard(article.text, _apply(article, edits[:middle]).text) <= nominal:
            high = middle
        else:
            low = middle + 1
    tried = [_apply(article, edits[:k]) for k in (max(low - 1, 0), low)]
    measured = [(abs(jaccard(article.text, t.text) - nominal), i) for i, t in enumerate(tried)]
    best = tried[min(measured)[1]]
    return best, jaccard(article.text, best.text)

"""What has to be known of spaCy's English tokenizer to apply it run by run with datatrove's result.

spaCy splits text at whitespace, tokenises each run by itself, then looks for special cases (":)", "Mr.") over
the whole document and merges what it finds, the longest first. A find that spans two runs merges nothing (no
special case holds a space), but it undoes shorter finds that it overlaps: "foo:)" is `foo :)`, "foo:) )" is
`foo : ) )`. Plain words skip spaCy: no affix, infix, or special case can apply to them. The tests compare all
of it with datatrove.
Source: spacy/tokenizer.pyx (`_tokenize_affixes`, `_apply_special_cases`), datatrove.utils.word_tokenizers,
0.10.1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

# As a token of its own this raises in spaCy's vocabulary; datatrove then cuts it out of the whole text.
BREAKS_SPACY = "IS_ALPHA"
_ORTH = 65  # spacy.symbols.ORTH: the key of a special case's token

# Words of ASCII letters joined by hyphens, with at most one mark before and one behind; a full stop only
# after two small letters.
_PLAIN = re.compile(r"""(["(“]?)([A-Za-z]+(?:-[A-Za-z]+)*)([,;:!?)"”]|(?<=[a-z]{2})\.|)""")
_HYPHEN = re.compile("(-)")
_RUN = re.compile(r"\S+")  # the same runs as str.split() gives
_BATCH_CHARS = 1 << 18  # spaCy holds some hundred bytes a token while it works


@contextmanager
def without_torch() -> Iterator[None]:
    """Inside, torch cannot be imported anew, only asked for in vain.

    spaCy's thinc imports torch wherever it is installed, for models that a tokenizer does not have: four seconds and
    200 MB in every worker that only counts words. thinc does without it when the import fails.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes `import torch` an ImportError
    try:
        yield
    finally:
        del sys.modules["torch"]


class English:
    """spaCy's blank English tokenizer as datatrove loads it. Use `english()`: loading takes a second."""

    def __init__(self) -> None:
        from datatrove.utils.word_tokenizers import load_word_tokenizer

        self._datatrove = load_word_tokenizer("en")
        with without_torch():  # here datatrove loads spaCy
            self._nlp = self._datatrove.tokenizer
        # In a fresh process the first text that has it passes and the next ones do not: settle that here.
        self._datatrove.word_tokenize(BREAKS_SPACY)
        rules = {chunk: tuple(spec[_ORTH] for spec in specs) for chunk, specs in self._rules().items()}
        patterns = self._patterns(rules)
        merging = {chunk: pattern for chunk, pattern in patterns.items() if rules[chunk] != pattern}
        self._specials = frozenset(rules)
        # Each merge leaves the tokens of its rule behind: one of them is enough to know of the merge.
        self._signs = frozenset(max(rules[chunk], key=len) for chunk in merging)
        # Special cases in which nothing is merged (again), so that no neighbour can undo anything.
        self._inert = frozenset(c for c, out in rules.items() if not _holds_any(out, set(merging.values())))
        # A special case that overlaps one inside a run starts or ends at most so many tokens, so runs, away.
        self._reach = max(map(len, patterns.values()))
        self._seams = frozenset(a[-1] + b[0] for p in patterns.values() for a, b in pairwise(p))

    def tokens(self, runs: Sequence[str]) -> list[list[str]]:
        """Tokens of each run of non-whitespace, as if it stood alone; none may hold BREAKS_SPACY."""
        by_run: list[list[str]] = [[] for _ in runs]
        hard = []
        for i, run in enumerate(runs):
            plain = self._plain(run)
            if plain is None:
                hard.append(i)
            else:
                by_run[i] = plain
        for i, tokens in zip(hard, self._spacy([runs[i] for i in hard]), strict=True):
            by_run[i] = tokens
        return by_run

    def whole(self, text: str) -> list[str]:
        """Tokens of a whole text, by datatrove itself."""
        return self._datatrove.word_tokenize(text)

    def in_context(self, text: str, runs: Sequence[int]) -> list[list[str]]:
        """Tokens of some runs of a text (by number), as its other runs leave them."""
        spans = [match.span() for match in _RUN.finditer(text)]
        by_run = []
        with self._nlp.memory_zone():
            for run in runs:
                first, last = max(run - self._reach, 0), min(run + self._reach, len(spans) - 1)
                window = self._nlp.tokenizer(text[spans[first][0] : spans[last][1]])
                start, end = (position - spans[first][0] for position in spans[run])
                by_run.append([token.text for token in window if start <= token.idx < end])
        return by_run

    def marked(self, run: str, tokens: Iterable[str]) -> bool:
        """Whether a neighbouring run could change these tokens of this run (never wrongly False)."""
        return not self._signs.isdisjoint(tokens) and run not in self._inert

    def seam(self, left: str, right: str) -> bool:
        """Whether a special case could span two neighbouring runs (never wrongly False)."""
        return left[-1] + right[0] in self._seams

    def _plain(self, run: str) -> list[str] | None:
        match = _PLAIN.fullmatch(run)
        if match is None or run in self._specials:
            return None
        before, word, behind = match.groups()
        parts = _HYPHEN.split(word)
        # Where spaCy would ask whether a part is a special case, one that is goes to spaCy.
        if not self._specials.isdisjoint((word, word + behind, before + word, parts[-1] + behind)):
            return None
        return [token for token in (before, *parts, behind) if token]

    def _spacy(self, runs: Sequence[str]) -> Iterator[list[str]]:
        for batch in _batches(runs, _BATCH_CHARS):
            # A newline is a token in no special case of several tokens, so runs do not see each other.
            # A memory zone, as in datatrove: spaCy neither grows its vocabulary nor fills its cache.
            with self._nlp.memory_zone():
                tokens = [token.text for token in self._nlp.tokenizer("\n".join(batch))]
            by_run: list[list[str]] = [[]]
            for token in tokens:
                if token == "\n":
                    by_run.append([])
                else:
                    by_run[-1].append(token)
            if ["".join(run) for run in by_run] != list(batch):
                raise RuntimeError(
                    "spaCy's English tokenizer gave back other text than it was given; "
                    "filters/text/english.py does not fit this version of spaCy"
                )
            yield from by_run

    def _rules(self) -> dict[str, list[dict[int, str]]]:
        return self._nlp.tokenizer.rules

    def _patterns(self, rules: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The special cases that spaCy's last pass looks for, as the tokens it looks for (two or more)."""
        full: Any = self._nlp.tokenizer
        searches = ("prefix_search", "suffix_search", "infix_finditer", "token_match", "url_match")
        bare = type(full)(full.vocab, rules={}, **{name: getattr(full, name) for name in searches})
        with self._nlp.memory_zone():
            split = {rule: tuple(token.text for token in bare(rule)) for rule in rules}
        return {rule: tokens for rule, tokens in split.items() if len(tokens) > 1}


@lru_cache(maxsize=1)
def english() -> English:
    """The tokenizer of this process."""
    return English()


def _holds_any(tokens: tuple[str, ...], patterns: set[tuple[str, ...]]) -> bool:
    ends = range(1, len(tokens) + 1)
    return any(tokens[start:end] in patterns for end in ends for start in range(end))


def _batches(runs: Sequence[str], chars: int) -> Iterator[Sequence[str]]:
    start = size = 0
    for i, run in enumerate(runs):
        size += len(run)
        if size >= chars:
            yield runs[start : i + 1]
            start, size = i + 1, 0
    if start < len(runs):
        yield runs[start:]

"""What has to be known of spaCy's English tokenizer to apply it run by run with datatrove's result.

spaCy splits text at whitespace, tokenises each run by itself, then looks for special cases (":)", "Mr.") over
the whole document and merges what it finds, the longest first. A find that spans two runs merges nothing (no
special case holds a space), but it undoes shorter finds that it overlaps: "foo:)" is `foo :)`, "foo:) )" is
`foo : ) )`. The first half is compiled (`filters/text/kernels/words.py`), from what stands here: special cases, units,
what is a URL. The second is `merged`. The tests compare all of it with datatrove, and so does every process, on some
thousand runs, before it splits its first text.
Source: spacy/tokenizer.pyx (`_tokenize_affixes`, `_apply_special_cases`), spacy/lang/tokenizer_exceptions.py,
datatrove.utils.word_tokenizers, 0.10.1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from gristmill.filters.text.rules import Rules
from gristmill.filters.text.tables import table

# As a token of its own this raises in spaCy's vocabulary; datatrove then cuts it out of the whole text.
BREAKS_SPACY = "IS_ALPHA"
_ORTH = 65  # spacy.symbols.ORTH: the key of a special case's token

Case = tuple[str, ...]


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
        full: Any = self._nlp.tokenizer
        if full.token_match is not None:
            raise RuntimeError(
                "spaCy's English tokenizer has a token_match, which filters/text/english.py knows not of"
            )
        self.specials: dict[str, Case] = {
            chunk: tuple(spec[_ORTH] for spec in specs) for chunk, specs in full.rules.items()
        }
        self.rules = self._rules()
        self._url = _UrlMatch(full.url_match)
        patterns = self._patterns()
        self._by_first: dict[str, list[Case]] = {}
        for pattern in patterns.values():
            self._by_first.setdefault(pattern[0], []).append(pattern)
        self.changing = frozenset(p[0] for chunk, p in patterns.items() if len(p) == 1 and self.specials[chunk] != p)
        longer = {chunk: pattern for chunk, pattern in patterns.items() if len(pattern) > 1}
        self.pairs = frozenset(pattern[:2] for pattern in longer.values())
        merging = {chunk: pattern for chunk, pattern in longer.items() if self.specials[chunk] != pattern}
        # Each merge leaves the tokens of its rule behind: one of them is enough to know of the merge.
        self.signs = frozenset(max(self.specials[chunk], key=len) for chunk in merging)
        # Special cases in which nothing is merged (again), so that no neighbour can undo anything.
        undone = set(merging.values())
        self._inert = frozenset(chunk for chunk, out in self.specials.items() if not _holds_any(out, undone))
        # A special case that overlaps one inside a run starts or ends at most so many tokens, so runs, away.
        self.reach = max(map(len, longer.values()))
        self._seams = frozenset(a[-1] + b[0] for pattern in longer.values() for a, b in pairwise(pattern))

    def is_url(self, core: str) -> bool:
        """Whether what is left of a run without its affixes is one token because it is a URL, in linear time."""
        return self._url(core)

    def merged(self, tokens: Sequence[str | None], owners: Sequence[int]) -> list[tuple[str, int]]:
        """The tokens after special cases that span several of them, each with its owner (run). A merge takes tokens of
        one owner; None stands for whitespace of which spaCy makes a token, and is left out."""
        finds = []
        for start, token in enumerate(tokens):
            for pattern in self._by_first.get(token, ()) if token is not None else ():
                if tuple(tokens[start : start + len(pattern)]) == pattern:
                    finds.append((-len(pattern), start))
        chosen: dict[int, int] = {}
        seen: set[int] = set()
        for size, start in sorted(finds):  # the longest first, then the leftmost
            places = range(start, start - size)
            if places[0] not in seen and places[-1] not in seen:
                chosen[start] = len(places)
            seen.update(places)
        result: list[tuple[str, int]] = []
        at = 0
        while at < len(tokens):
            end = at + chosen.get(at, 1)
            parts = [token for token in tokens[at:end] if token is not None]
            if at in chosen and len(set(owners[at:end])) == 1:
                parts = list(self.specials.get("".join(parts), parts))
                result += [(part, owners[at]) for part in parts]
            else:
                result += zip(parts, owners[at:end], strict=False)
            at = end
        return result

    def marked(self, run: str, tokens: Iterable[str]) -> bool:
        """Whether a neighbouring run could change these tokens of this run (never wrongly False)."""
        return not self.signs.isdisjoint(tokens) and run not in self._inert

    def seam(self, left: str, right: str) -> bool:
        """Whether a special case could span two neighbouring runs (never wrongly False)."""
        return left[-1] + right[0] in self._seams

    def by_spacy(self, runs: Sequence[str]) -> list[list[str]]:
        """Tokens of each run as if it stood alone, by spaCy: what everything else here has to come to."""
        # A newline is a token in no special case of several tokens, so runs do not see each other.
        # A memory zone, as in datatrove: spaCy neither grows its vocabulary nor fills its cache.
        with self._nlp.memory_zone():
            tokens = [token.text for token in self._nlp.tokenizer("\n".join(runs))]
        by_run: list[list[str]] = [[]]
        for token in tokens:
            if token == "\n":
                by_run.append([])
            else:
                by_run[-1].append(token)
        return by_run

    def _rules(self) -> Rules:
        from spacy.lang import char_classes

        behind = f"{char_classes.UNITS}|{char_classes.CURRENCY}|+".split("|")
        tails = dict.fromkeys(tail.replace("\\", "") for tail in behind if tail)
        sizes = [[len(token) for token in tokens] for tokens in self.specials.values()]
        starts = np.cumsum([0, *map(len, sizes)]).astype(np.int64)
        flat = np.array([size for of_case in sizes for size in of_case], np.int64)
        starts.flags.writeable = flat.flags.writeable = False
        longest = max(len(chunk.encode()) for chunk in self.specials)
        return Rules(table(list(self.specials)), (starts, flat), table(list(tails)), (longest, max(map(len, tails))))

    def _patterns(self) -> dict[str, Case]:
        """The special cases that spaCy's last pass looks for, as the tokens it looks for."""
        full: Any = self._nlp.tokenizer
        searches = ("prefix_search", "suffix_search", "infix_finditer", "token_match", "url_match")
        bare = type(full)(full.vocab, rules={}, **{name: getattr(full, name) for name in searches})
        looked_for = [
            chunk
            for chunk in self.specials
            if full.find_prefix(chunk) or full.find_infix(chunk) or full.find_suffix(chunk)
        ]
        with self._nlp.memory_zone():
            return {
                chunk: tuple(token.text for token in bare(chunk)) for chunk in looked_for if chunk.split() == [chunk]
            }


class _UrlMatch:
    """spaCy's pattern of URLs, taken apart so that it takes linear time: `user:password@` may match in as many ways as
    there are pairs of characters."""

    _PROTOCOL = r"(?:(?:[\w\+\-\.]{2,})://)?"
    _LOGIN = r"(?:\S+(?::\S*)?@)?"

    def __init__(self, match: Any) -> None:
        pattern: str = match.__self__.pattern
        head = "(?u)^" + self._PROTOCOL + self._LOGIN
        if not pattern.startswith(head):
            raise RuntimeError("spaCy's pattern of URLs begins otherwise; filters/text/english.py does not fit it")
        self._protocol = re.compile(self._PROTOCOL)
        self._host = re.compile("(?u)" + pattern.removeprefix(head))

    def __call__(self, core: str) -> bool:
        begins = {0}
        if protocol := self._protocol.match(core):
            begins.add(protocol.end())
        # A login is any character or more, and the sign: what stands behind any sign may be the host.
        begins.update(at.end() for at in re.finditer("@", core) if at.start() > 0)
        return any(self._host.match(core, begin) for begin in sorted(begins))


@lru_cache(maxsize=1)
def english() -> English:
    """The tokenizer of this process."""
    return English()


def _holds_any(tokens: Case, patterns: set[Case]) -> bool:
    ends = range(1, len(tokens) + 1)
    return any(tokens[start:end] in patterns for end in ends for start in range(end))

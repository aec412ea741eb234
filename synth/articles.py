"""Articles of the demo crawl: a title and paragraphs of sentences in one of nine languages. Notable choices:

- an English article uses its topic's sentences and a general pool, each template once until all are used;
- lengths follow a skewed curve (120 to 900 words in English), as on the web;
- Chinese and Japanese sentences join without spaces.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

from gristmill.synth.draw import Draw
from gristmill.synth.grammar import Grammar, grammar, sentence

LANGUAGES = ("en", "de", "fr", "es", "it", "pl", "ru", "zh", "ja")
_GENERAL = "general"


@dataclass(frozen=True)
class Article:
    """What a page says, without any markup."""

    language: str
    topic: str
    title: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        """The body: paragraphs joined by newlines, without the title."""
        return "\n".join(self.paragraphs)

    def with_paragraph(self, paragraph: str, position: int) -> "Article":
        """A copy with one more paragraph at the position."""
        new = (*self.paragraphs[:position], paragraph, *self.paragraphs[position:])
        return replace(self, paragraphs=new)


def _sentences(rules: Grammar, topic: str, draw: Draw, memo: dict[str, str]) -> list[str]:
    chosen = rules.topics[topic]
    pool = chosen.body + (rules.topics[_GENERAL].body if _GENERAL in rules.topics else [])
    opening = sentence(draw.pick(chosen.intro), rules, draw, memo)
    closing = sentence(draw.pick(chosen.end), rules, draw, memo)
    body: list[str] = []
    if rules.language == "en":
        target = 120 + int(780 * draw.fraction() ** 1.8)
        words = len(opening.split()) + len(closing.split())
        queue: list[str] = []
        while words < target:
            queue = queue or draw.shuffled(pool)
            body.append(sentence(queue.pop(), rules, draw, memo))
            words += len(body[-1].split())
    else:
        count = 8 + int((len(pool) - 8) * draw.fraction())
        body = [sentence(template, rules, draw, memo) for template in draw.shuffled(pool)[:count]]
    return [opening, *body, closing]


def _paragraphs(sentences: list[str], draw: Draw, joiner: str) -> tuple[str, ...]:
    count = max(4, min(20, len(sentences) // 3))
    cuts = sorted(draw.shuffled(range(1, len(sentences)))[: count - 1])
    bounds = [0, *cuts, len(sentences)]
    return tuple(joiner.join(sentences[a:b]) for a, b in pairwise(bounds))


def article(language: str, draw: Draw) -> Article:
    """An article in the language; every choice comes from the draw."""
    rules = grammar(language)
    topic = draw.pick([name for name in rules.topics if name != _GENERAL])
    memo: dict[str, str] = {}
    title = sentence(draw.pick(rules.topics[topic].titles), rules, draw, memo)
    sentences = _sentences(rules, topic, draw, memo)
    joiner = "" if language in ("zh", "ja") else " "
    return Article(language, topic, title, _paragraphs(sentences, draw, joiner))

"""Sentence grammars: data/<language>.txt read and expanded. Notable choices:

- the text lives in data files, so a person who speaks the language can mend it without reading code;
- `{slot}` draws afresh, `{Slot}` once an article (its town keeps its name), `[a|b]` chooses;
- templates hold few fixed runs of five words, so two unrelated articles share few 5-grams.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from gristmill.synth.draw import Draw

_SLOT = re.compile(r"\{([^{}]+)\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_AN = re.compile(r"\b([Aa]) (?=[aeioAEIO]|u[np](?!i))(?!one\b|once\b)")


@dataclass
class Topic:
    """The templates of one kind of article."""

    titles: list[str] = field(default_factory=list)
    intro: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    end: list[str] = field(default_factory=list)


@dataclass
class Grammar:
    """The slots and topics of one language."""

    language: str
    slots: dict[str, list[str]] = field(default_factory=dict)
    topics: dict[str, Topic] = field(default_factory=dict)


def data_lines(name: str) -> list[str]:
    """The lines of a data file without comments and blanks."""
    text = files("gristmill.synth").joinpath(f"data/{name}").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def parse(language: str, lines: list[str]) -> Grammar:
    """A grammar from its lines; ValueError names a template whose slot is not defined."""
    grammar = Grammar(language)
    topic = Topic()
    for line in lines:
        if line.startswith("@"):
            name, _, values = line[1:].partition(" = ")
            grammar.slots[name] = values.split(" | ")
        elif line.startswith("== "):
            topic = grammar.topics.setdefault(line[3:], Topic())
        elif line.startswith("! "):
            topic.titles += line[2:].split(" | ")
        elif line.startswith("^ "):
            topic.intro.append(line[2:])
        elif line.startswith("$ "):
            topic.end.append(line[2:])
        else:
            topic.body.append(line)
    for line in lines:
        for name in _SLOT.findall(line):
            if not name.startswith("n:") and name.lower() not in grammar.slots:
                raise ValueError(f"{language}: slot {name!r} is not defined; allowed: {sorted(grammar.slots)}: {line}")
    return grammar


@cache
def grammar(language: str) -> Grammar:
    """The grammar of an ISO 639-1 language that has a data file."""
    return parse(language, data_lines(f"{language}.txt"))


def _unused(values: list[str], seen: set[str], draw: Draw) -> str:
    """A value this sentence has not used, if a few tries find one: "oak and oak" reads badly."""
    for _ in range(5):
        value = draw.pick(values)
        if value not in seen or "{" in value:
            break
    seen.add(value)
    return value


def expand(template: str, rules: Grammar, draw: Draw, memo: dict[str, str]) -> str:
    """The template with every choice and slot drawn; `memo` keeps the article's own values."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("n:"):
            low, _, high = name[2:].partition("-")
            return str(draw.between(int(low), int(high)))
        if not name[0].isupper():
            return _unused(rules.slots[name], seen, draw)
        if name not in memo:
            memo[name] = expand(draw.pick(rules.slots[name.lower()]), rules, draw, memo)
        return memo[name]

    seen: set[str] = set()
    text = template
    while "{" in text or "[" in text:
        text = _CHOICE.sub(lambda m: draw.pick(m[1].split("|")), text)
        text = _SLOT.sub(value, text)
    return text


def sentence(template: str, rules: Grammar, draw: Draw, memo: dict[str, str]) -> str:
    """An expanded template that begins with a capital and, in English, has its a / an right."""
    text = expand(template, rules, draw, memo)
    if rules.language == "en":
        text = _AN.sub(r"\1n ", text)
    start = next((i for i, c in enumerate(text) if c.isalnum()), 0)
    return text[:start] + text[start].upper() + text[start + 1 :]

"""Everyday conversations, and what all instruction data of the sample have in common. Notable choices:

- questions are written together with their answers, so answers are right by construction;
- every row is a function of (seed, file, number); rows that are not planted as duplicates differ in content;
- the truth knows each row's fate: kept, dropped (one fault a row), quarantined (no JSON), or one of a set of exact
  duplicates, of which a pipeline keeps one.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.grammar import Grammar, expand, grammar, sentence

SHE = ["Ana", "Ruth", "Clara", "Marta", "Greta", "Nadia", "Ellen", "Lydia", "Rosa", "Amara", "Ines", "Mei", "Freya"]
HE = ["Tomas", "Owen", "Idris", "Leon", "Samir", "Hector", "Oscar", "Malik", "Kofi", "Jonas", "Mateo", "Ravi", "Anton"]
_START = re.compile(r"(?<=[.?!] )[a-z]")


def filled(draw: Draw, template: str, **values: object) -> str:
    """The template with its choices drawn and its slots filled, by the values before the English grammar's."""
    slots = grammar("en").slots | {"who": SHE + HE} | {name: [str(value)] for name, value in values.items()}
    return expand(template, Grammar("en", slots), draw, {})


def phrase(draw: Draw, template: str, **values: object) -> str:
    """The same as sentences: they begin with capitals, and a / an is right."""
    text = sentence(filled(draw, template, **values), Grammar("en"), draw, {})
    return _START.sub(lambda match: match[0].upper(), text)


class Row(NamedTuple):
    """A line without its id; `reason` says why it is to be dropped, if it is."""

    kind: str
    fields: dict[str, Any]
    reason: str | None = None


class Exchange(NamedTuple):
    """A request and its answer; `bare` is the result alone, where there is one."""

    ask: str
    answer: str
    bare: str = ""


def _listed(words: Sequence[object]) -> str:
    return ", ".join(map(str, words))


def _sort(draw: Draw) -> list[Exchange]:
    pool = draw.pick((grammar("en").slots["food"], grammar("en").slots["animal"], grammar("en").slots["job"], SHE + HE))
    words = draw.shuffled(pool)[: draw.between(4, 8)]
    how = draw.pick(("alphabetically", "by length, the shortest first (alphabetically where equal)", "numbers"))
    if how == "numbers":
        numbers = [draw.between(1, 999) for _ in words]
        order, down = sorted(numbers), sorted(numbers, reverse=True)
        asked = Exchange(f"Sort these numbers from small to large: {_listed(numbers)}.",
                         f"From small to large: {_listed(order)}.", _listed(order))  # fmt: skip
        return [asked, Exchange("And the other way round?", f"From large to small: {_listed(down)}.", _listed(down))]
    done = sorted(words) if how == "alphabetically" else sorted(words, key=lambda word: (len(word), word))
    asked = Exchange(f"{draw.pick(('Sort', 'Order'))} these words {how}: {_listed(words)}.",
                     f"Here they are in order: {_listed(done)}.", _listed(done))  # fmt: skip
    return [asked, Exchange("Which one comes last?", f'The last one is "{done[-1]}".', done[-1])]


def _count(draw: Draw) -> list[Exchange]:
    text = phrase(draw, "[The {adj} {job} {verb} {amount} {adj} letters|{group} {verb} the {thing} {when}].")
    n, long = len(text.split()), max(text.strip(".").split(), key=len)
    asked = phrase(draw, "[How many words are in this sentence|Count the words of this sentence]: {x}", x=f'"{text}"')
    which = "Which word is the longest (the first, if there are several)?"
    return [Exchange(asked, f"The sentence has {n} words.", str(n)), Exchange(which, f'It is "{long}".', long)]


_UNITS = """kilometre kilometres metres 1000 | metre metres centimetres 100 | kilogram kilograms grams 1000
litre litres millilitres 1000 | hour hours minutes 60 | minute minutes seconds 60 | week weeks days 7
day days hours 24 | foot feet inches 12 | pound pounds ounces 16""".replace("\n", " | ").split(" | ")


def _units(draw: Draw) -> list[Exchange]:
    singular, plural, small, factor = draw.pick(_UNITS).split()
    n, f = draw.between(2, 60), int(factor)
    up = Exchange(
        phrase(draw, "[How many {s} are {n} {m}?|Convert {n} {m} to {s}.]", s=small, n=n, m=plural),
        f"{draw.pick(('One', 'A'))} {singular} has {f} {small}, so {n} {plural} are {n} * {f} = {n * f} {small}.",
        f"{n * f} {small}",
    )
    total, double = n * f * 2, f"{n * 2} {plural}"
    down = Exchange(f"And {total} {small} in {plural}?", f"{total} / {f} = {n * 2}, so these are {double}.", double)
    return [up, down]


def _weekday(draw: Draw) -> list[Exchange]:
    days = grammar("en").slots["weekday"]
    at, n = draw.below(7), draw.between(14, 70)
    then, rest = days[(at + n) % 7], n % 7
    over = f"and {rest} more days" if rest > 1 else "and one more day" if rest else "exactly"
    asked = phrase(draw, "[Today is {d}. What day is it in {n} days?|If today is {d}, what day is it in {n} days?]",
                   d=days[at], n=n)  # fmt: skip
    full = f"{n} days are {n // 7} weeks {over}. The weekday repeats every 7 days, so it will be {then}."
    day = days[at - 1]
    return [Exchange(asked, full, then), Exchange("And what day was it yesterday?", f"Yesterday was {day}.", day)]


def _place(draw: Draw) -> list[Exchange]:
    slots = {"town": "{town}", "river": "{river}", "year": "{n:1200-1890}", "sight": "[mill|bridge|market hall|tower]",
             "goods": "[cheese|clocks|plums|linen|lanterns|rye bread|pottery]", "month": "{month}"}  # fmt: skip
    facts = {name: filled(draw, template) for name, template in slots.items()}
    asked = (
        "[Write a short paragraph|Write a few sentences] about {town}, a town in my [story|novel|game]. Notes: on the "
        "river {river}; founded in {year}; known for its {goods}; an old {sight}; a fair in {month}."
    )
    reply = (
        "{town} lies on the river {river} and was founded in {year}. [People know it for its {goods}|It is best known "
        "for its {goods}], and the old {sight} [still stands in the middle of the town|draws visitors all year]. Every "
        "{month} [there is a fair|the town holds a fair][ that lasts for days|]."
    )
    short = "{town}, founded in {year} on the river {river}, is known for its {goods}, its {sight} and its fair."
    more = draw.pick((
        ("When was the town founded?", "It was founded in {year}."),
        ("What is it known for?", "It is known for its {goods}."),
        ("Now make it one sentence.", short),
        ("When is the fair?", "The fair is in {month}."),
    ))  # fmt: skip
    return [Exchange(*(phrase(draw, text, **facts) for text in pair)) for pair in ((asked, reply), more)]


# base | third person | past | participle | object | is or are
_VERBS = """sell | sells | sold | sold | warm bread | is
write | writes | wrote | written | long letters | are
repair | repairs | repaired | repaired | the old clock | is
grow | grows | grew | grown | red tomatoes | are
teach | teaches | taught | taught | two classes | are
carry | carries | carried | carried | the heavy boxes | are""".splitlines()


def _rewrite(draw: Draw) -> list[Exchange]:
    job = draw.pick(grammar("en").slots["job"])
    base, third, past, done, what, be = draw.pick(_VERBS).split(" | ")
    when = draw.pick(("every week", "in the morning", "after lunch", "on Fridays"))
    forms = {
        "in the past tense": f"The {job} {past} {what} {when}.",
        "in the future tense": f"The {job} will {base} {what} {when}.",
        "as a question": f"Does the {job} {base} {what} {when}?",
        "as a negative sentence": f"The {job} does not {base} {what} {when}.",
        "in the passive voice": f"{what[0].upper()}{what[1:]} {be} {done} by the {job} {when}.",
    }
    first, second = draw.shuffled(list(forms))[:2]
    asked = f"{draw.pick(('Rewrite', 'Please rewrite'))} this sentence {first}: The {job} {third} {what} {when}."
    again = Exchange(f"And the original {second}?", forms[second], forms[second])
    return [Exchange(asked, forms[first], forms[first]), again]


def _extract(draw: Draw) -> list[Exchange]:
    slots = {"name": "{person}", "job": "{job}", "town": "{town}", "year": "{n:1960-2020}"}
    facts = {name: filled(draw, template) for name, template in slots.items()}
    text = phrase(draw, "[In {year} {name} moved to {town} and has worked there as a {job} since|{name}, a {job}, has "
                  "lived in {town} since {year}|The {job} {name} came to {town} in {year}].", **facts)  # fmt: skip
    keys = draw.shuffled(list(facts))[: draw.between(3, 4)]
    asked_for = {key: int(facts[key]) if key == "year" else facts[key] for key in keys}
    if draw.chance(0.5):
        asked, done = (
            f"Answer with a JSON object with the keys {_listed(keys)}",
            json.dumps(asked_for, ensure_ascii=False),
        )
    else:
        head, rule, cells = (" | ".join(x) for x in (keys, ["---"] * len(keys), map(str, asked_for.values())))
        asked, done = f"Make a Markdown table with the columns {_listed(keys)}", f"| {head} |\n| {rule} |\n| {cells} |"
    return [Exchange(f"{asked}: {text}", done, done)]


def _mail(draw: Draw) -> list[Exchange]:
    day, other = draw.shuffled(grammar("en").slots["weekday"][:5])[:2]
    values = {"a": draw.pick(HE), "b": draw.pick(SHE), "d": day, "e": other, "h": draw.between(9, 16)}
    values["what"] = draw.pick(("the meeting", "our lesson", "the interview", "lunch", "the rehearsal"))
    values["why"] = draw.pick(("my train is cancelled", "I have a cold", "I expect a customer", "the room is taken"))
    asked = "[Write|Draft] a short message from {a} to {b}: {what} moves from {d} to {e} at {h}:00, because {why}."
    reply = (
        "Dear {b},\n\n[I'm sorry, but|Unfortunately,] {why}, so {d} does not suit me. [Could we move {what} to {e} at "
        "{h}:00|Would {e} at {h}:00 be possible for {what}]? [Please let me know.|I hope that you have time then.]\n\n"
        "[Best wishes|Kind regards],\n{a}"
    )
    return [Exchange(phrase(draw, asked, **values), phrase(draw, reply, **values))]


def _logic(draw: Draw) -> list[Exchange]:
    a, b, c = draw.shuffled(["brills", "tammers", "zolks", "florps", "wendels", "mips", "quorns", "daxes"])[:3]
    can = draw.pick(("sing", "swim", "glow", "count to ten", "fly", "sleep all winter"))
    asked = f"All {a} are {b}, and all {b} can {can}."
    if draw.chance(0.5):
        return [Exchange(f"{asked} Can all {a} {can}?", f"Yes. All {a} are {b}, and all {b} can {can}.", "Yes")]
    full = f"That does not follow. Nothing is said about {c}: they may or may not be able to {can}."
    return [Exchange(f"{asked} Does it follow that all {c} can {can}?", full, "No")]


_HOW = """brew a pot of tea / Warm the pot. / Put in a spoonful of tea a cup. / Add boiling water. / Wait a little.
repot a plant / Choose a wider pot. / Put some soil into it. / Lift the plant out of the old one. / Set it in with soil.
cook rice / Rinse the rice. / Add twice as much water. / Bring it to the boil. / Let it stand covered for a while.
sew on a button / Thread a needle. / Go through cloth and button a few times. / Wind the thread around. / Fasten it.
learn a poem / Read it aloud twice. / Learn two lines at a time. / Repeat all from the start. / Say it the next day.
plan a party / Fix the day and the guests. / Write the invitations. / Make a list of food. / Ask two friends to help."""


def _how_to(draw: Draw) -> list[Exchange]:
    what, *steps = draw.pick(_HOW.splitlines()).split(" / ")
    numbered = "\n".join(f"{i}. {step}" for i, step in enumerate(steps, 1))
    at = draw.below(len(steps) - 1)
    asked = phrase(draw, "[How do I {x}?|Explain in four steps how to {x}.|How does one {x}?]", x=what)
    nth = ("first", "second", "third")[at]
    return [Exchange(asked, numbered), Exchange(f"What comes after the {nth} step?", steps[at + 1])]


_TASKS = (_sort, _count, _units, _weekday, _place, _rewrite, _extract, _mail, _logic, _how_to)
_SYSTEMS = ("You are a helpful assistant.", "You are a patient teacher.", "You are a friendly and careful assistant.")


def _turns(exchanges: Sequence[Exchange], bare: bool = False) -> list[dict[str, str]]:
    texts = [text for e in exchanges for text in (e.ask, e.bare if bare else e.answer)]
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def chat(draw: Draw) -> Row:
    """A conversation about one task or several; its kind is the first."""
    tasks = draw.shuffled(_TASKS)[: draw.pick((1, 1, 1, 2, 2, 3))]
    exchanges = [e for task in tasks for e in task(draw)[: draw.between(1, 2)]]
    bare = all(e.bare for e in exchanges) and draw.chance(0.4)
    turns = _turns(exchanges, bare)
    if bare or draw.chance(0.35):
        system = "Answer with the result only, without any explanation." if bare else draw.pick(_SYSTEMS)
        turns.insert(0, {"role": "system", "content": system})
    return Row(f"chat{tasks[0].__name__}", {"messages": turns})


# what is broken: the reason
BROKEN = {"other_role": "unknown_role", "no_text": "empty_turn", "no_answer": "no_assistant", "two_asks": "bad_order"}


def broken_chat(draw: Draw, what: str) -> Row:
    """A conversation with one of BROKEN."""
    turns = _turns([*_rewrite(draw), *draw.pick(_TASKS)(draw)])
    if what == "other_role":
        turns.append({"role": draw.pick(("narrator", "moderator", "observer")), "content": "And so they parted."})
    elif what == "no_text":
        turns[draw.below(len(turns))]["content"] = draw.pick(("", "  ", "\n"))
    elif what == "no_answer":
        turns = turns[:1]
    else:
        turns.insert(1, {"role": "user", "content": "Hello? Are you there?"})
    return Row(what, {"messages": turns}, BROKEN[what])


@dataclass(frozen=True)
class RowTruth:
    """One row of instruct/truth.jsonl; `family` is the id of the first row with the same content."""

    file: str
    row: int
    kind: str
    expected: str | None
    reason: str | None
    family: str | None = None


def distinct(make: Callable[[Draw], Row], count: int, *key: object) -> list[Row]:
    """So many rows of different content: what was drawn before is drawn again with another key."""
    rows: dict[str, Row] = {}
    tries = 0
    while len(rows) < count:
        row = make(Draw(*key, tries))
        rows.setdefault(json.dumps({name: row.fields[name] for name in row.fields if name != "tools"}), row)
        tries += 1
    return list(rows.values())


def written(name: str, rows: list[Row], seed: int, copies: int, cut: bool) -> tuple[bytes, list[RowTruth]]:
    """A file of JSON lines in a drawn order and its truth: with copies of the first rows (the very first twice) and, if
    `cut`, one line broken off."""
    rows = [*rows, *rows[:copies], *rows[: min(1, copies)]]
    lines, truths, firsts = list[bytes](), list[RowTruth](), dict[str, str]()
    times = Counter(json.dumps(row.fields) for row in rows)
    for at, i in enumerate(Draw(seed, "order", name).shuffled(range(len(rows)))):
        kind, fields, reason = rows[i]
        ident, content = f"{name}-{at}", json.dumps(fields)
        line = json.dumps({"id": ident, **fields}, ensure_ascii=False).encode()
        truth = RowTruth(f"instruct/{name}.jsonl", at, kind, "dropped" if reason else "kept", reason)
        if times[content] > 1:
            family = firsts.setdefault(content, ident)
            truth = replace(truth, kind="duplicate_set", expected=None, reason="duplicate", family=family)
        elif cut and i == copies:
            truth = replace(truth, kind="truncated", expected="quarantined", reason="unreadable")
            line = line[: 2 * len(line) // 3]
        lines.append(line + b"\n")
        truths.append(truth)
    return b"".join(lines), truths

"""Word problems of two to four steps with a worked answer, in GSM8K's form. Notable choices:

- templates are text: `:` chooses numbers (`n=2..9`, or an expression), `?` asks, `=` is a step of the answer;
- a step `{n * p = cost}` is computed while the story is told, so an answer is right by construction;
- half of the problems are chains (an opening, up to two events, a closing, all about one stock of things);
- results are whole numbers from 2 up; a draw that does not come out is drawn again;
- the last line is `#### N`, N the result of the last step; `{n~}` is n in digits or in letters.
"""

import re
from functools import cache
from typing import Any

from gristmill.synth.draw import Draw
from gristmill.synth.tasks.instructions import HE, SHE, Row, phrase

_LETTERS = ("", "", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_STEP = re.compile(r"\{(\w+) ([-+*/]) (\w+) = (\w+)\}")
# verb | many | container | containers | what may be wrong with some of them
_STOCKS = """picks | apples | crate | crates | bruised
picks | pears | basket | baskets | rotten
bakes | buns | bag | bags | burnt
bakes | muffins | box | boxes | burnt
gathers | shells | jar | jars | cracked
gathers | eggs | carton | cartons | cracked
makes | candles | box | boxes | bent
prints | postcards | packet | packets | smudged
cuts out | paper stars | envelope | envelopes | crooked""".splitlines()
_TEMPLATES = """
== opening daily
: a=4..30; n=3..7
? {name} {verb} {a} {many} [a|every|each] day for {n~} days.
= [In {n} days|Over the {n} days] {name} {verb} {n * a = have} {many}.
== opening two_days
: a=8..40; b=3..15; d,e=pair('Monday|Wednesday|Friday|Saturday')
? On {d} {name} {verb} {a} {many}, and on {e} {b} more than on {d}.
= On {e} {name} {verb} {a + b = more} {many}.
= That makes {a + more = have} {many} on the two days.
== opening shelves
: n=3..12; a=4..24
? {name} has {n~} shelves with {a} {many} on each.
= [The shelves hold|On the shelves there are] {n * a = have} {many}.
== opening morning
: a=6..30; k=2..4; fold=times(k)
? {name} {verb} {a} {many} in the morning and {fold} as many in the afternoon.
= In the afternoon {name} {verb} {k * a = more} {many}.
= [In all|Altogether] that is {a + more = have} {many}.
== opening together
: a=20..60; b=5..15
? {name} has {a} {many}. {friend} has {b} fewer [and gives them all to {name}|but lets {name} have them all].
= {friend} [brings|has] {a - b = more} {many}.
= Then {name} has {a + more = have} {many}.
== event give
: b=3..have//3
? [Then|The next day|Later] {she} gives {b} of [them|the {many}] to {her} {relative}.
= After the gift {she} has {have - b = have} {many}.
== event more
: b=5..30
? [Later|The next week|Then] {she} {verb} {b} more.
= With the new ones {she} has {have + b = have} {many}.
== event spoiled
: b=2..min(12, have//4)
? [But|Unfortunately,] {b~} of them [are|turn out to be] {fault}, so {she} [puts those aside|leaves those out].
= Without the {fault} ones there are {have - b = have} {many}.
== event part
: k=divisor(have, 2, 5); part=fraction(k)
? {she} [sells {part} of them at the market|gives {part} of them to the neighbours|takes {part} of them to school].
= [{part} of them is|{part} of {have} is] {have / k = gone} {many}.
= So {she} keeps {have - gone = have} {many}.
== event friends
: n=2..5; b=2..have//(2*n)
? {she} gives {b~} {many} to each of {her} {n~} [friends|cousins|neighbours].
= {she} gives away {n * b = gone} {many}.
= {she} still has {have - gone = have} {many}.
== event delivery
: n=2..6; b=3..15
? {her} {relative} brings {n~} more {boxes} with {b} {many} in each.
= {her} {relative} brings {n * b = more} {many}.
= Now {she} has {have + more = have} {many}.
== closing left
? How many {many} does {name} have [now|in the end|after that]?
== closing pack
: k=divisor(have, 3, 12)
? {she} packs {her} {many} into {boxes} of {k~}. How many {boxes} does {she} fill?
= {she} fills {have / k = full} {boxes}.
== closing sell
: p=2..6
? {she} sells [the {many}|all {her} {many}] for {p} dollars each. How [much money|many dollars] does {she} get?
= {she} gets {have * p = paid} dollars.
== closing profit
: p=2..6; c=5..have*p//3
? {she} sells {her} {many} for {p} dollars each. [The|A] stall costs {c} dollars. How many dollars are left?
= {she} gets {have * p = paid} dollars for the {many}.
= [Of these|In the end] {paid - c = left} dollars are left.
== closing share
: k=divisor(have, 2, 9)
? {she} shares {her} {many} equally among {k~} children. How many {many} does each child get?
= Each child gets {have / k = each} {many}.
== closing target
: goal=(have//10+between(2, 6))*10
? {she} needs {goal} {many} for [a party|the school fair|a big order]. How many more does {she} need?
= {she} still needs {goal - have = lacks} {many}.
== closing double
: k=2..3; fold=times(k)
? {other} has {fold} as many {many} as {name} has now. How many {many} do they have together?
= {other} has {k * have = more} {many}.
= Together they have {have + more = all} {many}.
== story shopping
: n=2..9; m=2..6; p=2..9; q=3..12; note=pick((50, 100, 200)); g,h=pair('notebooks|rulers|scarves|mugs|kites')
? {name} buys {n~} {g} for {p} dollars each and {m~} {h} for {q} dollars each.
? {she} pays with [a {note}-dollar note|{note} dollars]. How much change does {she} get?
= The {g} cost {n * p = one} dollars.
= The {h} cost {m * q = two} dollars.
= Together they cost {one + two = cost} dollars.
= The change is {note - cost = change} dollars.
== story sale
: k=pick((2, 4, 5, 10)); c=100//k; f=fraction(k); p=k*between(6, 20); v=3..9; t=pick(('coat', 'lamp', 'tent'))
? A {t} costs {p} dollars. In the sale it is {c} percent cheaper, and {name} has a voucher for {v} dollars.
? How much does {name} pay for the {t}?
= {c} percent is {f}, so the discount is {p / k = off} dollars.
= The sale price is {p - off = now} dollars.
= With the voucher {name} pays {now - v = paid} dollars.
== story reading
: n=3..7; a=12..30; m=3..9; b=15..40; t=n*a+m*b
? {name} is reading a book of {t} pages. For the first {n~} days {she} reads {a} pages a day, after that {b} a day.
? How many days does {she} need for the rest?
= In the first {n} days {she} reads {n * a = done} pages.
= Then {t - done = rest} pages are left.
= {she} needs {rest / b = days} days for them.
== story journey
: n=2..5; v=5*between(8, 18); m=2..4; w=5*between(8, 18); t=n*v+m*w+5*between(3, 30)
? {name} [drives|travels by bus] for {n~} hours at {v} kilometres an hour.
? After a break {she} goes on for {m~} hours at {w} kilometres an hour.
? The whole way is {t} kilometres. How many kilometres are left?
= Before the break {name} covers {n * v = one} kilometres.
= After the break {she} covers {m * w = two} kilometres.
= That is {one + two = far} kilometres.
= There are {t - far = left} kilometres left.
== story saving
: g=5..30; w=3..15; n=3..12; a=5..40; c=a+g+n*w; t=pick(('drum', 'kayak')); kin=pick(('aunt', 'uncle'))
? A {t} costs {c} dollars. {name} has {a} dollars, gets {g} dollars from {her} {kin} and saves {w} dollars a week.
? In how many weeks can {she} buy the {t}?
= With the gift {name} has {a + g = has} dollars.
= {she} lacks {c - has = lacks} dollars.
= Saving them takes {lacks / w = weeks} weeks.
== story fence
: a=8..40; b=4..a-2; p=2..12; g=pick('garden|meadow|playground|chicken run'.split('|'))
? A rectangular {g} is {a} metres long and {b} metres wide. A fence costs {p} dollars a metre.
? How much does a fence all around the {g} cost?
= One long and one short side make {a + b = half} metres.
= All around it is {2 * half = around} metres.
= The fence costs {around * p = cost} dollars.
== story ages
: a=9..14; b=2..4; k=3..5; n=2..12; fold=times(k); kin=pick(('brother', 'sister')); old=pick(('aunt', 'uncle'))
? {name} is {a} years old. {her} {kin} is {b~} years younger, and their {old} is {fold} as old as the {kin}.
? How old will the {old} be in {n~} years?
= The {kin} is {a - b = young} years old.
= The {old} is {k * young = now} years old.
= In {n} years the {old} will be {now + n = then} years old.
== story recipe
: k=pick((2, 3, 4, 6)); m=2..5; p=k*m; g=25*between(4, 16); h=25*between(2, m*g//25-2); f=pick(('flour', 'rice'))
? A recipe for {k~} people needs {g} grams of {f}. {name} cooks for {p~} people and has {h} grams at home.
? How many grams of {f} does {she} have to buy?
= {name} needs the recipe {p / k = batches} times.
= That takes {batches * g = need} grams.
= {she} has to buy {need - h = buys} grams.
== story bus
: a=18..40; b=3..9; c=4..14; d=5..9; e=3..12; v=pick(('bus', 'tram', 'ferry', 'train'))
? A {v} starts with {a} passengers. At the first stop {b~} get off and {c~} get on.
? At the second, {d~} get off and {e~} get on. How many passengers are on the {v} then?
= After {b} get off, there are {a - b = i} passengers.
= After {c} get on, there are {i + c = j} passengers.
= At the second stop {j - d = k} passengers stay.
= With the {e} new ones there are {k + e = m} passengers.
== story mean
: x=8..30; a=x+between(-5, 5); b=x+between(-5, 5); c=3*x-a-b
? In three games {name} scores {a}, {b} and {c} points. [What is {her} average|How many points is that on average]?
= In the first two games {she} scores {a + b = two} points.
= In all three it is {two + c = all} points.
= The average is {all / 3 = mean} points.
== story hens
: n=6..20; m=2..9; k=12*m; e=3..6; p=2..6; kept=n*e-k
? {name} has {n} hens, and each lays {e~} eggs a week. {she} keeps {kept} eggs.
? {she} sells the others for {p} dollars a dozen. How much money does {she} get for them?
= The hens lay {n * e = eggs} eggs.
= {she} sells {eggs - kept = sold} of them.
= That is {sold / 12 = dozens} dozen.
= {she} gets {dozens * p = paid} dollars.
"""


class _DoesNotComeOut(Exception):
    """The numbers drawn leave no whole or sensible result."""


@cache
def _templates() -> dict[str, dict[str, list[str]]]:
    """The lines of each template, by part (opening, event, closing, story) and name."""
    parts: dict[str, dict[str, list[str]]] = {}
    for block in _TEMPLATES.split("\n== ")[1:]:
        head, *lines = block.strip().splitlines()
        part, name = head.split()
        parts.setdefault(part, {})[name] = lines
    return parts


def _pair(draw: Draw, choices: str) -> list[str]:
    items = choices.split("|")
    at = draw.below(len(items) - 1)
    return [items[at], draw.pick(items[at + 1 :])]


def _divisor(draw: Draw, n: int, low: int, high: int) -> int:
    divisors = [k for k in range(low, high + 1) if n % k == 0 and k < n]
    if not divisors:
        raise _DoesNotComeOut
    return draw.pick(divisors)


class _Story:
    """A problem in the making: sentences of the question, steps of the answer, the values they speak of."""

    def __init__(self, draw: Draw) -> None:
        self.draw, self.question, self.steps, self.last = draw, list[str](), list[str](), 0
        she = draw.chance(0.5)
        name = draw.pick(SHE if she else HE)
        friend, other = draw.shuffled([n for n in SHE + HE if n != name])[:2]
        self.values: dict[str, Any] = dict(
            zip(("verb", "many", "box", "boxes", "fault"), draw.pick(_STOCKS).split(" | "), strict=True),
            name=name, friend=friend, other=other, she="she" if she else "he", her="her" if she else "his",
            relative=draw.pick(("neighbour", "cousin", "grandmother", "brother", "aunt", "teacher")),
        )  # fmt: skip
        self.functions = {
            "between": draw.between, "pick": draw.pick, "min": min, "pair": lambda text: _pair(draw, text),
            "divisor": lambda n, low, high: _divisor(draw, n, low, high),
            "times": {2: "twice", 3: "three times", 4: "four times", 5: "five times"}.__getitem__,
            "fraction": {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 10: "a tenth"}.__getitem__,
        }  # fmt: skip

    def tell(self, lines: list[str]) -> None:
        """Adds a template: chooses its numbers, asks, computes. Raises _DoesNotComeOut."""
        for line in lines:
            mark, text = line[0], line[2:]
            if mark == ":":
                for assignment in text.split("; "):
                    self._choose(*assignment.split("=", 1))
            elif mark == "?":
                self.question.append(phrase(self.draw, text, **self.values))
            else:
                self.steps.append(phrase(self.draw, _STEP.sub(self._compute, text), **self.values))

    def _choose(self, names: str, expression: str) -> None:
        low, dots, high = expression.partition("..")
        value = self._number(f"between({low}, {high})" if dots else expression)
        for name, number in zip(names.split(","), value if "," in names else [value], strict=True):
            self.values[name] = number
            if isinstance(number, int):
                if number < 2:
                    raise _DoesNotComeOut
                letters = number < len(_LETTERS) and self.draw.chance(0.6)
                self.values[f"{name}~"] = _LETTERS[number] if letters else number

    def _number(self, expression: str) -> Any:
        return eval(expression, {"__builtins__": {}, **self.functions}, self.values)  # of the constants above

    def _compute(self, match: re.Match[str]) -> str:
        a, b = self._number(match[1]), self._number(match[3])
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[match[2]]
        if result != int(result) or not 2 <= result <= 9999:
            raise _DoesNotComeOut
        self.last = self.values[match[4]] = int(result)
        return f"{a} {match[2]} {b} = {self.last}"


def _plan(draw: Draw) -> tuple[str, list[str]]:
    """The kind of a problem and the lines that tell it."""
    parts = _templates()
    if draw.chance(0.4):
        name = draw.pick(list(parts["story"]))
        return f"math_{name}", parts["story"][name]
    events = draw.shuffled(list(parts["event"].values()))[: draw.between(0, 2)]
    opening, closing = (draw.pick(list(parts[part].values())) for part in ("opening", "closing"))
    return "math_chain", [line for lines in (opening, *events, closing) for line in lines]


def problem(draw: Draw) -> Row:
    """A problem of two to four steps: `question` and `answer`."""
    kind, lines = _plan(draw)
    while not 2 <= sum(line.startswith("=") for line in lines) <= 4:
        kind, lines = _plan(draw)
    while True:
        story = _Story(draw)
        try:
            story.tell(lines)
        except _DoesNotComeOut:
            continue
        answer = "\n".join([*story.steps, f"#### {story.last}"])
        return Row(kind, {"question": " ".join(story.question), "answer": answer})

"""The verifier of multiple choice: which of the options a chain names, by its letter, its text or both.

A verifier of its own, since to computer algebra `A` is a variable. A chain that names two options, or a letter with
another option's text, is rejected; a gold answer that is none of the options leaves it undecided.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gristmill.synth.verify.answers.compare import compare
from gristmill.synth.verify.answers.final import final_answer, trimmed
from gristmill.synth.verify.answers.reading import read, unset
from gristmill.synth.verify.verdict import Named, Problem, Verdict

CHOICE = Named("choice", 2)
LETTERS = "ABCDEFGHIJ"
_LETTER = re.compile(r"(?:option|choice|answer)?\s*[(（\[]?([A-Ja-j])[)）\].:：]?(?:\s+|$)(.*)", re.IGNORECASE)
_BARE = re.compile(r"[(（]?([A-J])[)）.:：]")
_SEVERAL = re.compile(r"[(（]?\b([A-J])\b[)）]?\s*(?:,|/|&|\band\b|\bor\b)\s*[(（]?\b([A-J])\b")


@dataclass(frozen=True)
class Choice:
    """Judges problems with `choices`; their gold answer is a letter, an option's text, or a number from 0."""

    @property
    def id(self) -> str:
        """`choice@2`."""
        return CHOICE.id

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """Accepted: the chain names one option, and it is the gold one."""
        choices = problem.choices
        if not 2 <= len(choices) <= len(LETTERS):
            raise ValueError(f"a choice has 2 to {len(LETTERS)} options, not {len(choices)}: {problem.question[:80]!r}")
        gold = gold_option(problem.gold, choices)
        if gold is None:
            return CHOICE.undecided("unparseable_gold", repr(problem.gold))
        answer = final_answer(chain)
        if answer is None:
            return CHOICE.reject("no_answer", chain[-80:])
        options = {option(text, choices) for text in (*answer.others, answer.text)}
        if len(options) > 1:
            return CHOICE.reject("several_answers", f"{', '.join(answer.others)} and {answer.text}")
        (named,) = options
        evidence = f"{answer.text} for {LETTERS[gold]}"
        if isinstance(named, str):
            return CHOICE.reject(named, evidence)
        return CHOICE.accept(evidence) if named == gold else CHOICE.reject("wrong_answer", evidence)


def gold_option(gold: str, choices: tuple[str, ...]) -> int | None:
    """The number of the gold option, from 0; None: it is none of them."""
    named = option(gold, choices)
    if isinstance(named, int):
        return named
    return int(gold) if gold.strip().isdecimal() and len(gold) < 3 and int(gold) < len(choices) else None


def option(text: str, choices: tuple[str, ...]) -> int | str:
    """Which option a text names, from 0; else what is wrong: `no_option`, `hedged`, `contradicts` (letter and text)."""
    plain = unset(trimmed(text))
    by_text = _by_text(plain, choices)
    match = _LETTER.fullmatch(plain)
    texts = [plain] if match is None else [plain, match[2]]
    names_options = any(_same_text(part, choice) for part in texts for choice in choices)  # an option `A and D`
    if not names_options and _SEVERAL.search(plain):
        return "hedged"
    if match is None or match[1].upper() not in LETTERS[: len(choices)]:
        return "no_option" if by_text is None else by_text
    number = LETTERS.index(match[1].upper())
    if not match[2] or by_text is not None:
        return number if by_text is None else by_text  # an option whose whole text is `a`, say
    if len(plain) > 2 and not _BARE.match(plain) and not plain.casefold().startswith(("option", "choice")):
        return "no_option"  # `a triangle` is no letter with a text
    rest = _by_text(match[2], choices)
    return number if rest in (None, number) else "contradicts"


def _same_text(part: str, choice: str) -> bool:
    return part.casefold().split() == unset(trimmed(choice)).casefold().split() != []


def _by_text(plain: str, choices: tuple[str, ...]) -> int | None:
    """The only option that a text is equal to, as texts or as numbers."""
    answer = read(plain)
    same = [number for number, choice in enumerate(choices) if compare(read(choice), answer).relation == "same"]
    return same[0] if len(same) == 1 else None

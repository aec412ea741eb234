"""What generated scenes have for an answer, by what their pictures show: the rules of questions, written again."""

from __future__ import annotations

import re
from collections.abc import Callable

import scenes
from scenes import Reading

from gristmill.synth.scenes.figures import NOTHING

ORDINALS = ("first", "second", "third")


def _place(first: Reading, question: str) -> str:
    return first.get(question.removeprefix("What is ").strip("?"), NOTHING)


def _colour(first: Reading, question: str) -> str:
    (figure,) = [figure for figure in first.values() if figure.endswith(question.strip("?").rpartition(" ")[2])]
    return figure.partition(" ")[0]


def _where(first: Reading, question: str) -> str:
    (at,) = [at for at, figure in first.items() if question.strip("?").rpartition(" ")[2] in figure.split()]
    return at


def _digits(first: Reading, question: str) -> str:
    (text,) = [figure for figure in first.values() if figure.startswith("text")]
    assert question == "Which digits?"
    return text.removeprefix("text ")


def _there(first: Reading, question: str) -> str:
    return "yes" if re.fullmatch(r"Is there a (.+)\?", question)[1] in first.values() else "no"  # type: ignore[index]


def _frame(readings: list[Reading], question: str) -> str:
    where, ordinal = re.fullmatch(r"What is (.+) in the (\w+)\?", question).groups()  # type: ignore[union-attr]
    assert all(where in reading for reading in readings)
    return readings[ORDINALS.index(ordinal)][where]


def _same(readings: list[Reading], question: str) -> str:
    before, after = readings
    at = re.fullmatch(r"Is (.+) the same in both\?", question)[1]  # type: ignore[index]
    return "yes" if before.get(at) == after.get(at) else "no"


def _changed(readings: list[Reading], question: str) -> str:
    before, after = readings
    assert question == "What changed?"
    (at,) = [at for at in {**before, **after} if before.get(at) != after.get(at)]
    return f"{at} {before.get(at, NOTHING)} became {after.get(at, NOTHING)}"


def _which(readings: list[Reading], question: str) -> str:
    figure = re.fullmatch(r"Which has a (.+)\?", question)[1]  # type: ignore[index]
    (number,) = [number for number, reading in enumerate(readings) if figure in reading.values()]
    return ORDINALS[number]


ONE: dict[str, Callable[[Reading, str], str]] = {
    "place": _place, "colour": _colour, "where": _where, "digits": _digits, "there": _there,
}  # fmt: skip
SEVERAL: dict[str, Callable[[list[Reading], str], str]] = {
    "frame": _frame, "same": _same, "changed": _changed, "which": _which,
}  # fmt: skip


def kind_of(question: str) -> str:
    """By its words."""
    forms = {
        "What changed": "changed", "Is there": "there", "What colour": "colour", "Where": "where",
        "Which digits": "digits", "Which has": "which", "Is ": "same",
    }  # fmt: skip
    named = (kind for start, kind in forms.items() if question.startswith(start))
    return next(named, "frame" if " in the " in question else "place")


def answered(readings: list[Reading], question: str) -> str:
    """The answer by what the pictures show."""
    kind = kind_of(question)
    return ONE[kind](readings[0], question) if kind in ONE else SEVERAL[kind](readings, question)


def _judged(reading: Reading, wanted: str) -> str:
    """Every figure, and whether it has all the words that are wanted."""
    fits = {at: set(wanted.split()) <= set(figure.split()) for at, figure in reading.items()}
    return " ".join(f"{at} {figure} is {wanted} {'yes' if fits[at] else 'no'}" for at, figure in reading.items())


def _compared(readings: list[Reading], *places: str) -> str:
    """What both frames show at each place, and whether it is the same."""
    shown = {at: [reading.get(at, NOTHING) for reading in readings] for at in places}
    return "\n".join(
        f"{at} first {first} second {second} {'yes' if first == second else 'no'}"
        for at, (first, second) in shown.items()
    )


def _searched(readings: list[Reading], wanted: str) -> str:
    return "\n".join(
        f"{ordinal} {_judged(reading, wanted)}" for ordinal, reading in zip(ORDINALS, readings, strict=True)
    )


def thought(readings: list[Reading], question: str) -> str:
    """What leads to the answer: nothing where it is read off at once."""
    asked_for = {
        "colour": r"What colour is the (.+)\?", "where": r"Where is the (.+)\?", "there": r"Is there a (.+)\?",
        "which": r"Which has a (.+)\?", "same": r"Is (.+) the same in both\?",
    }  # fmt: skip
    kind = kind_of(question)
    if kind == "changed":
        return _compared(readings, *scenes.PLACES)
    if kind not in asked_for:
        return ""
    wanted = re.fullmatch(asked_for[kind], question)[1]  # type: ignore[index]
    if kind == "same":
        return _compared(readings, wanted)
    return _searched(readings, wanted) if kind == "which" else _judged(readings[0], wanted)

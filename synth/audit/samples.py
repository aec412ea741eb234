"""Labelled samples: chains of which somebody said whether they are right. JSON lines in one of several forms.

| form | keys | label |
|---|---|---|
| plain | `question`, `gold`, `chain`, `right` (and `choices`) | `right` |
| GSM8K's model solutions | `question`, `ground_truth`, and per model `solution`, `is_correct` | `is_correct` |
| HumanEval | `prompt`, `canonical_solution`, `test`, `entry_point` | right |
| MBPP | `code`, `test_list` (`test_setup_code`, `challenge_test_list`) | right |
| ToRA's and Qwen's outputs | `question`, `gt`, `code` (chains), `pred`, maybe `score` | `score`; else `pred` is `gt` |

The form follows from the keys of each line. A line that has none of them is an error with its number: an audit of a
part of a file would say something about another file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from gristmill.synth.verify.answers.final import final_answer
from gristmill.synth.verify.verdict import Problem

LONGEST_LINE = 32 << 20
"""Bytes of a line that is still read."""


@dataclass(frozen=True)
class Labelled:
    """A chain, its problem, and whether it is right. `at`: the line, and which chain of it."""

    problem: Problem
    chain: str
    right: bool
    at: str


def labelled(lines: Iterable[bytes]) -> Iterator[Labelled]:
    """The samples of a file, in order. Raises ValueError for a line that has none of the forms."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) > LONGEST_LINE:
            raise ValueError(f"line {number}: {len(line):,} bytes, at most {LONGEST_LINE:,} are read")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is no JSON: {error}") from None
        yield from _samples(row, f"line {number}")


def _samples(row: Any, at: str) -> Iterator[Labelled]:
    keys = set(row) if isinstance(row, dict) else set()
    if {"gold", "chain", "right"} <= keys:
        choices = tuple(_text(choice, at, "choices") for choice in row.get("choices", ()))
        problem = Problem("choice" if choices else "maths", str(row.get("question", "")), str(row["gold"]), choices)
        yield Labelled(problem, _text(row["chain"], at, "chain"), _flag(row["right"], at, "right"), at)
    elif {"question", "ground_truth"} <= keys:
        yield from _gsm8k(row, at)
    elif {"prompt", "canonical_solution", "test", "entry_point"} <= keys:
        yield Labelled(humaneval(row, at), _text(row["canonical_solution"], at, "canonical_solution"), True, at)
    elif {"code", "test_list"} <= keys:
        yield Labelled(mbpp(row, at), _text(row["code"], at, "code"), True, at)
    elif {"gt", "code", "pred"} <= keys:
        yield from _outputs(row, at)
    else:
        named = ", ".join(sorted(map(str, keys))) or f"{type(row).__name__}, not an object"
        raise ValueError(
            f"{at}: no form of labelled samples has these keys: {named}. Allowed are gold, chain, right; "
            "question, ground_truth and models with solution and is_correct; gt, code, pred and maybe score; "
            "a row of HumanEval or MBPP"
        )


def humaneval(row: dict[str, Any], at: str) -> Problem:
    """The problem of a row of HumanEval."""
    prompt, test, name = (_text(row[key], at, key) for key in ("prompt", "test", "entry_point"))
    return Problem("code", prompt, tests=(test, f"check({name})"), prelude=prompt, entry_point=name)


def mbpp(row: dict[str, Any], at: str) -> Problem:
    """The problem of a row of MBPP. What is set up uses the program's classes, so it is the first of the tests."""
    tests = [row.get("test_setup_code", ""), *row["test_list"], *row.get("challenge_test_list", ())]
    texts = tuple(_text(test, at, "test") for test in tests)
    return Problem("code", str(row.get("text", "")), tests=tuple(filter(None, texts)))


def _gsm8k(row: dict[str, Any], at: str) -> Iterator[Labelled]:
    gold = final_answer(_text(row["ground_truth"], at, "ground_truth"))
    problem = Problem("maths", str(row["question"]), gold.text if gold else "")
    models = {name: cell for name, cell in row.items() if isinstance(cell, dict) and "is_correct" in cell}
    if not models:
        raise ValueError(f"{at}: no model with solution and is_correct")
    for name, cell in models.items():
        chain, where = _text(cell.get("solution"), at, f"{name}.solution"), f"{at}, {name}"
        yield Labelled(problem, chain, _flag(cell["is_correct"], at, f"{name}.is_correct"), where)


def _outputs(row: dict[str, Any], at: str) -> Iterator[Labelled]:
    chains, predictions = row["code"], row["pred"]
    scores = row.get("score")
    for name, cell in (("code", chains), ("pred", predictions), ("score", scores)):
        if not isinstance(cell, list) and (name != "score" or cell is not None):
            raise ValueError(f"{at}: {name} is a list, not {type(cell).__name__}")
        if cell is not None and len(cell) != len(chains):
            raise ValueError(f"{at}: {len(chains)} chains in code, {len(cell)} in {name}")
    problem = Problem("maths", str(row.get("question", "")), str(row["gt"]))
    for number, chain in enumerate(chains):
        if scores is not None:
            right = _flag(scores[number], at, f"score[{number}]")
        else:
            right = _plain_number(str(predictions[number])) == _plain_number(str(row["gt"]))
        yield Labelled(problem, _text(chain, at, f"code[{number}]"), right, f"{at}, chain {number}")


def _plain_number(text: str) -> Fraction | str:
    """A number as these files write it; deliberately no rule of the verifier that is audited."""
    try:
        return Fraction(text.replace(",", "")) if len(text) < 100 and "e" not in text.lower() else text
    except (ValueError, ZeroDivisionError):
        return text


def _text(cell: Any, at: str, name: str) -> str:
    if not isinstance(cell, str):
        raise ValueError(f"{at}: {name} is a text, not {type(cell).__name__}")
    return cell


def _flag(cell: Any, at: str, name: str) -> bool:
    if not isinstance(cell, bool):
        raise ValueError(f"{at}: {name} is true or false, not {cell!r}")
    return cell

"""The final answer of a chain: which text it is, and whether there is only one.

A chain says its answer in a line (`#### 18`, `A: 18`, `Answer: 18`), between tags (`<answer>18</answer>`), in
`\\boxed{18}`, in a sentence ("the answer is 18."), or, as ToRA's do, by what its last program printed. Where it says
several, they have to agree: a chain that boxes every candidate is not right because one of them is. "The gold answer
appears somewhere" accepts 433 wrong chains of the 2,429 that it accepts of GSM8K's labelled solutions. Every reading is
a pass over the text; no pattern has nested repetitions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Form = Literal["line", "boxed", "sentence", "output"]

LONGEST_ANSWER = 400
"""Characters of an answer that is still read."""
_LINE = re.compile(
    r"^[ \t]*(?:(?:\*\*|#{1,6} )?(?:(?-i:A)|(?:the )?final answer|(?:the )?answer|答案|答)"
    r"(?:\*\*)?[ \t]?[:：][ \t]*)"
    r"(\S[^\n]*)$",
    re.MULTILINE | re.IGNORECASE,
)
_HASHES = re.compile(r"(?<!#)####[ \t]*((?!#)\S[^\n]*)$", re.MULTILINE)
_TAGGED = re.compile(r"<answer>([^<]+)</answer>", re.IGNORECASE)
_NUMERIC = re.compile(r"[-+$€£¥({\[\\. \t]*\d(?!\d*[.)][ \t]+\w)|\\")
"""What follows `####` before an answer, and not in a heading: `#### 1. First step`."""
_SENTENCE = re.compile(
    r"\b(?:answer|result)[ \t](?:is|=|equals)[ \t]?:?[ \t]*([^\n]+)|答案[是为][:：]?[ \t]*([^\n。]+)", re.IGNORECASE
)
_OUTPUT = re.compile(r"^```output\n([^`\n]+)\n```", re.MULTILINE)
_BETWEEN = re.compile(r"[ \t$,.;()\[\]\\]*(?:and|or)?[ \t$,.;()\[\]\\]*")
_NEAR = 20
"""Characters between two boxes that may be parts of an answer."""
_THOUGHT = "</think>"
_BOXES = (r"\boxed", r"\fbox", r"\framebox")
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)[ \t]?\{")
_SENTENCE_END = re.compile(r"(?<=[^\s\d])\.(?:\s|$)|(?<=\d)\.(?=\s|$)|[!?](?:\s|$)")


@dataclass(frozen=True)
class Answer:
    """`text`: as it stands in the chain, trimmed. `others`: the answers that it gives elsewhere, in the same form."""

    text: str
    form: Form
    others: tuple[str, ...] = ()


def final_answer(chain: str) -> Answer | None:
    """The last answer of a chain, in the strongest of the forms that it uses; None: it says none.

    What was thought before `</think>` is no part of the answer.
    """
    text = chain.rpartition(_THOUGHT)[2]
    forms: tuple[tuple[Form, list[str]], ...] = (
        ("line", _lines(text)),
        ("boxed", boxed(text)),
        ("sentence", [_first_sentence(match[1] or match[2]) for match in _SENTENCE.finditer(text)]),
        ("output", [match[1] for match in _OUTPUT.finditer(text)][-1:]),  # programs before it print steps
    )
    for form, answers in forms:
        answers = [answer for answer in map(trimmed, answers) if answer]
        if answers:
            return Answer(answers[-1], form, tuple(dict.fromkeys(answers[:-1])))
    return None


def boxed(text: str) -> list[str]:
    """The contents of the boxes of a text, in order; a box that is not closed has none. Braces are counted once.

    Boxes with no words between them are an answer of several parts: `\\boxed{-2} and \\boxed{1}` is `-2, 1`.
    """
    contents: list[str] = []
    at = 0
    while (box := _BOX.search(text, at)) is not None:
        depth, end = 1, box.end()
        while depth and end < len(text):
            if text[end] == "\\":
                end += 1  # an escaped brace counts not
            elif text[end] in "{}":
                depth += 1 if text[end] == "{" else -1
            end += 1
        if depth:
            break  # it swallows the rest, so no later box is outside of it
        content = text[box.end() : end - 1]
        is_near = bool(contents) and box.start() - at <= _NEAR and len(contents[-1]) <= LONGEST_ANSWER
        if is_near and _BETWEEN.fullmatch(text, at, box.start()):
            contents[-1] += f", {content}"
        else:
            contents.append(content)
        at = end
    return contents


def trimmed(answer: str) -> str:
    """An answer without what encloses it: a box, emphasis, dollars, a full stop."""
    answer = answer[: 4 * LONGEST_ANSWER].strip()
    for _ in range(4):  # each round takes one layer off
        before = answer
        answer = answer.strip("*_ \t\r`").removesuffix("<|endoftext|>").removesuffix("</s>").rstrip(" .;。")
        inside = boxed(answer) if answer.startswith(_BOXES) or f"${_BOXES[0]}" in answer else []
        answer = inside[-1] if inside else answer
        for opening, closing in (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
            enclosed = len(answer) > len(opening) + len(closing) and answer.startswith(opening)
            if enclosed and answer.endswith(closing) and opening not in answer[len(opening) : -len(closing)]:
                answer = answer[len(opening) : -len(closing)].strip()
        if answer == before:
            break
    return answer


def _lines(text: str) -> list[str]:
    """What stands in the answer lines of a text, in order. `####` begins a heading, too, unless it is the last line."""
    end = len(text.rstrip())
    matches = [match for match in _HASHES.finditer(text) if _NUMERIC.match(match[1]) or match.end() >= end]
    matches += [*_LINE.finditer(text), *_TAGGED.finditer(text)]
    return [_in_line(match[1]) for match in sorted(matches, key=lambda match: match.start(1))]


def _in_line(line: str) -> str:
    """The answer in an answer line, which may be a sentence: `The final answer is $18$. I hope it is correct.`"""
    line = line[: 4 * LONGEST_ANSWER]
    sentence = _SENTENCE.search(line)
    return _first_sentence(sentence[1] or sentence[2]) if sentence else line


def _first_sentence(rest: str) -> str:
    """Up to the full stop that ends the sentence; a point within a number ends nothing."""
    rest = rest[: 4 * LONGEST_ANSWER]
    end = _SENTENCE_END.search(rest)
    return rest[: end.start()] if end else rest

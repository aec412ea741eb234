"""The verifier of problems that a model has written: whether a reply states one, in a form that can be asked again.

What the answer is, and whether there is one, nobody knows yet: that is found out by having it answered several times,
and kept where the answers agree (`synth.verify.agreement`). So only the form is judged here, and that a reply is not
the text itself that it was to start from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gristmill.synth.verify.verdict import Named, Problem, Verdict

WORDING = Named("wording", 1)
SHORTEST, LONGEST = 5, 400
"""Words of a problem."""
_MARK = re.compile(r"^[ \t]*(?:\*\*|#{1,6}[ \t])?(?:new[ \t])?(?:problem|question)[ \t]*:(?:\*\*)?[ \t]*", re.I | re.M)
_BEHIND = re.compile(r"^[ \t]*(?:\*\*|#{1,6}[ \t])?(?:answer|solution|hint)[ \t]*:", re.I | re.M)
_ASKS = re.compile(
    r"[?？]|\b(?:find|compute|calculate|determine|evaluate|solve|simplify|express|show that|prove|what|how)\b", re.I
)
_THOUGHT = "</think>"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Wording:
    """Judges replies to seeds: problems that were written from a text, or from another problem."""

    @property
    def id(self) -> str:
        """`wording@1`."""
        return WORDING.id

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """Accepted: the reply states a problem of its own; the evidence is the problem."""
        question = worded(chain)
        if question is None:
            return WORDING.reject("no_problem", chain[-80:])
        words = _words(question)
        if len(words) < SHORTEST:
            return WORDING.reject("too_short", question)
        if len(words) > LONGEST:
            return WORDING.reject("too_long", f"{len(words)} words")
        if not _ASKS.search(question):
            return WORDING.reject("asks_nothing", question[-80:])
        if f" {' '.join(words)} " in f" {' '.join(_words(problem.question))} ":
            return WORDING.reject("copied", question)
        return WORDING.accept(question)


def worded(reply: str) -> str | None:
    """The problem of a reply: what follows the last line that begins with `Problem:` or `Question:`, up to one that
    begins with `Answer:`, `Solution:` or `Hint:`. None: it states none. What was thought before `</think>` is left out.
    """
    text = reply.rpartition(_THOUGHT)[2]
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    question = text[marks[-1].end() :]
    behind = _BEHIND.search(question)
    question = (question[: behind.start()] if behind else question).strip().strip("*").strip()
    return question or None


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]

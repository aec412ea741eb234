"""What of the tokens around a sign of equality is arithmetic: the end of its left side, the beginning of its right.

Words behind a number are its unit and are left out; `20% of` is a product. Where what stands before or behind may be a
part of the expression (a variable, a function, "twice", brackets without an operator), there is none: None.
"""

from __future__ import annotations

from gristmill.synth.verify.answers.number import Token
from gristmill.synth.verify.answers.units import unit

OPERATORS = ("plus", "minus", "times", "over", "power")
_OPERANDS = ("number", "frac")
_TURN = """twice thrice half double triple quarter third times plus minus divided multiplied squared cubed less fewer
more than choose mod log ln sin cos tan sqrt root step part day case question problem number no week equation method
option line example page chapter year percent dozen"""
_TURNING = frozenset(_TURN.split())
"""Words before an expression by which it may be something else than its numbers."""
_JOINTS = """and or then when if gives give gave is are was only so we where because since for as let else while has
have get gets remainder r"""
_JOINING = frozenset(_JOINTS.split())
"""Words behind a number that are no unit of it, but begin something else: `x = 2 and x = -3`."""
_PLACES = frozenset(("at", "by", "from", "in", "of", "on", "per", "to", "with"))
_UNIT_WORDS = 3


def joins(word: Token) -> bool:
    """Whether a word between two signs of equality begins something else than a unit."""
    return len(word.text) == 1 or word.text.casefold() in _JOINING | _PLACES


def ending(side: list[Token], whole: bool) -> list[Token] | None:
    """The arithmetic that a side ends with, units left out; None: there is none, or it may mean more.

    `whole`: the side stands between two signs of equality, and has to be arithmetic from its beginning.
    """
    tokens = _without_units(side)
    if not tokens or tokens[-1].kind not in ("number", "close", "braceclose", "percent"):
        return None
    at = len(tokens)
    wants_operand = True
    while at:
        kind = tokens[at - 1].kind
        if wants_operand:
            start = _operand_start(tokens, at)
            if start is None:
                return None
            at, wants_operand = start, False
        elif kind in OPERATORS:
            at -= 1
            if kind in ("plus", "minus") and _is_sign(tokens, at):
                at += kind == "plus"
                break
            wants_operand = True
        else:
            break
    if at and (whole or _changes_meaning(tokens, at)):
        return None
    return None if wants_operand else tokens[at:]


def _is_sign(tokens: list[Token], at: int) -> bool:
    """Whether the plus or minus at `at` has nothing before it that it could be an operator of."""
    return at == 0 or tokens[at - 1].kind not in ("number", "close", "braceclose", "percent")


def _operand_start(tokens: list[Token], end: int) -> int | None:
    """Where the operand begins that ends before `end`; None: what stands there is none."""
    at = end
    while at and tokens[at - 1].kind == "percent":
        at -= 1
    if not at:
        return None
    kind = tokens[at - 1].kind
    if kind == "number":
        return at - 1
    closing = {"close": "open", "braceclose": "braceopen"}.get(kind)
    if closing is None:
        return None
    start = _opening(tokens, at)
    if start is None:
        return None
    if kind == "close":
        return start
    # {a}{b} of a fraction
    if start and tokens[start - 1].kind == "braceclose":
        start = _opening(tokens, start)
    if start and tokens[start - 1].kind == "frac":
        return start - 1
    return None


def _opening(tokens: list[Token], end: int) -> int | None:
    """The bracket that the one before `end` closes."""
    depth = 0
    for at in range(end - 1, -1, -1):
        kind = tokens[at].kind
        depth += (kind in ("close", "braceclose")) - (kind in ("open", "braceopen"))
        if not depth:
            return at
    return None


def _changes_meaning(tokens: list[Token], at: int) -> bool:
    """Whether what stands before an expression may be a part of it."""
    before = tokens[at - 1]
    if before.kind == "word" and tokens[at].kind == "minus":
        return True
    if any(token.kind in OPERATORS for token in tokens[:at]):
        return True  # 3 for her husband + 2 for herself + 8
    if before.kind != "word":  # a sign that nobody knows, a number without an operator
        return before.kind not in ("open", "close") or (before.kind == "close" and before.end == tokens[at].start)
    word = before.text.casefold()
    if before.end == tokens[at].start or (len(word) == 1 and word != "a") or word in _TURNING:
        return True  # a function, a variable
    return word == "of" and not (at > 1 and tokens[at - 2].text.casefold() in ("total", "sum", "profit", "cost"))


def beginning(side: list[Token]) -> list[Token] | None:
    """The arithmetic that a side begins with, units left out; None: there is none, or it may mean more."""
    tokens = _without_units(side)
    at = end = 0
    while at < len(tokens):
        while at < len(tokens) and tokens[at].kind in ("plus", "minus"):
            at += 1
        operand = _operand_end(tokens, at)
        if operand is None:
            break
        at = end = operand
        if at == len(tokens) or tokens[at].kind not in OPERATORS:
            break
        at += 1
    if not end:
        return None
    if end < len(tokens) and _goes_on(tokens, end):
        return None
    return tokens[:end]


def _goes_on(tokens: list[Token], end: int) -> bool:
    """Whether what stands behind an expression may be a part of it."""
    behind = tokens[end]
    glued = behind.start == tokens[end - 1].end
    if behind.kind == "word":
        is_mixed = behind.text == "and" and end + 1 < len(tokens) and tokens[end + 1].kind in (*_OPERANDS, "open")
        return is_mixed or behind.text.casefold() in ("remainder", "r") or (glued and unit(behind.text) is None)
    if behind.kind == "open":  # a product, or a comment in brackets
        return glued or (end + 1 < len(tokens) and tokens[end + 1].kind != "word")
    return behind.kind not in ("close", "minus")


def _operand_end(tokens: list[Token], at: int) -> int | None:
    """Where the operand ends that begins at `at`."""
    if at >= len(tokens):
        return None
    kind = tokens[at].kind
    if kind == "frac":
        end: int | None = at + 1
        for _ in range(2):
            end = _closing(tokens, end) if end is not None else None
    elif kind == "number":
        end = at + 1
    elif kind == "open":
        end = _closing(tokens, at)
    else:
        return None
    while end is not None and end < len(tokens) and tokens[end].kind == "percent":
        end += 1
    return end


def _closing(tokens: list[Token], start: int) -> int | None:
    """Behind the bracket that closes the one at `start`; behind a number that stands in place of braces."""
    if start < len(tokens) and tokens[start].kind == "number":
        return start + 1
    depth = 0
    for at in range(start, len(tokens)):
        kind = tokens[at].kind
        depth += (kind in ("open", "braceopen")) - (kind in ("close", "braceclose"))
        if depth <= 0:
            return at + 1 if at > start else None
    return None


def _without_units(side: list[Token]) -> list[Token]:
    """Tokens without the words between a number and an operator, or behind the last number; `% of` is a product."""
    kept: list[Token] = []
    words: list[Token] = []
    for token in side:
        if token.kind == "word":
            words.append(token)
            continue
        if words and kept:
            after_number = kept[-1].kind in ("number", "close", "percent")
            if _is_share(kept, words) and token.kind in (*_OPERANDS, "open"):
                kept.append(Token("times", "of", words[0].start, words[0].end))
                words = []
            elif after_number and token.kind in OPERATORS and token.kind != "power" and _are_units(kept, words):
                words = []
        kept += words
        words = []
        kept.append(token)
    if words and kept and kept[-1].kind in ("number", "close", "percent"):
        words = [] if _are_units(kept, words) else words
    return kept + words


def _are_units(kept: list[Token], words: list[Token]) -> bool:
    """Whether words behind a number can be its unit: few, no variable glued to it, nothing that computes."""
    first = words[0].text
    if len(words) > _UNIT_WORDS or len(first) == 1:
        return False
    if words[0].start == kept[-1].end and words[0].end - words[0].start == len(first) and unit(first) is None:
        return False  # a variable, but not \\text{...}
    return not any(word.text.casefold() in _TURNING | _JOINING for word in words)


def _is_share(kept: list[Token], words: list[Token]) -> bool:
    """`20% of`, `1/2 of`."""
    if len(words) != 1 or words[0].text.casefold() != "of":
        return False
    is_fraction = len(kept) > 2 and kept[-1].kind == "number" and kept[-2].kind == "over"
    return kept[-1].kind in ("percent", "braceclose") or is_fraction

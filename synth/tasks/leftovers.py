"""Word problems whose right answer is often hit by luck: what is left over when things are packed. Choices:

- the story is that of `stories.py`, of one to three events; then all is packed by three, four or five, and what
  is asked is what is left, 0 to 4: a chain with a false step has the right answer once in four times;
- every step is an equation that can be checked, the last one `4*6+2=26`, so that whoever looks at the steps, not at the
  answer alone, tells such a chain from a right one;
- a problem has one shortest chain and many wrong ones: of distinct chains with the right answer, a model that is not
  good yet writes more wrong ones than right ones;
- two numbers that follow each other in a held-out problem never do in another one, as in `stories.py`: no 13 words in
  a row are in both.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

from gristmill.synth.draw import Draw
from gristmill.synth.tasks.instructions import Row, distinct
from gristmill.synth.tasks.stories import chain, is_held_out, sentences

FOLDER = "reasoning"
_BAGS = (3, 4, 5)
_EVENTS = (1, 3)
_LATER_DIGIT = re.compile(r"(?<=\d)\d")


def leftover(draw: Draw, *, held_out: bool = False) -> Row:
    """A problem, `question`, `answer`, and as its `domain` how many events it has; held out, or one of the others."""
    count = draw.between(*_EVENTS)
    bags: list[int] = []
    while not bags:
        steps = chain(draw, count)
        if all(is_held_out(a.operand, b.operand) == held_out for a, b in pairwise(steps)):
            bags = [bag for bag in _BAGS if is_held_out(steps[-1].operand, bag) == held_out]
    bag = draw.pick(bags)
    question = " ".join([*sentences(draw, steps), f"Packed by {bag}, how many are left?"])
    total = steps[-1].after
    full, left = divmod(total, bag)
    answer = "\n".join([*map(str, steps), f"{bag}*{full}+{left}={total}", f"#### {left}"])
    fields = {"question": question, "answer": answer, "domain": f"{count} event{'s' * (count > 1)}"}
    return Row(f"leftover_{count}_events", fields)


def leftover_files(
    seed: int, *, worked: int = 600, problems: int = 3000, held_out: int = 400
) -> tuple[dict[str, bytes], Counter[str]]:
    """The files of reasoning/ and how many rows of each kind they have: `worked` problems with their chains, in two
    files `problems` each with the answer alone, and `held_out`. In words.jsonl are the texts of the worked ones with
    numbers of one digit: a tokenizer that is trained on it reads larger numbers digit by digit."""
    rows = distinct(leftover, worked + 2 * problems, seed, FOLDER)
    held = distinct(partial(leftover, held_out=True), held_out, seed, FOLDER, "held-out")
    own, unworked = [row.fields for row in rows[:worked]], [_without_chain(row.fields) for row in rows[worked:]]
    files = {
        "worked": own,
        "first": unworked[:problems],
        "second": unworked[problems:],
        "held-out": [row.fields for row in held],
        "words": [{"text": _LATER_DIGIT.sub("", f"{row['question']}\n{row['answer']}")} for row in own],
    }
    kinds = Counter(row.kind for row in (*rows, *held)) + Counter({"leftover_words": worked})
    return {f"{FOLDER}/{name}.jsonl": _lines(name, lines) for name, lines in files.items()}, kinds


def _without_chain(row: Mapping[str, str]) -> dict[str, str]:
    return {**row, "answer": row["answer"].splitlines()[-1]}


def _lines(name: str, rows: Sequence[Mapping[str, str]]) -> bytes:
    return "".join(json.dumps({"id": f"{name}-{number}", **row}) + "\n" for number, row in enumerate(rows)).encode()

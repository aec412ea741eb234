"""Word problems whose right answer is often hit by luck: what is left over when things are packed in bags. Choices:

- the story is that of `stories.py`, of one to three events; then as many as possible go in bags of three, four or five,
  and what is asked is what is left, 0 to 4: a chain with a false step has the right answer once in four times;
- every step is an equation that can be checked, the last one `4*6+2=26`, so that whoever looks at the steps, not at the
  answer alone, tells such a chain from a right one;
- a problem has one shortest chain and many wrong ones: of distinct chains with the right answer, a model that is not
  good yet writes more wrong ones than right ones;
- held-out problems hold pairs of numbers that no other one has, as in `stories.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

from gristmill.synth.draw import Draw
from gristmill.synth.tasks.instructions import Row, distinct
from gristmill.synth.tasks.stories import chain, is_held_out, told

FOLDER = "reasoning"
_BAGS = (3, 5)
_EVENTS = (1, 3)
_LATER_DIGIT = re.compile(r"(?<=\d)\d")


def leftover(draw: Draw, *, held_out: bool = False) -> Row:
    """A problem, `question`, `answer`, and as its `domain` how many events it has; held out, or one of the others."""
    count = draw.between(*_EVENTS)
    while True:
        steps, bag = chain(draw, count), draw.between(*_BAGS)
        numbers = [*(step.operand for step in steps), bag]
        if all(is_held_out(a, b) == held_out for a, b in pairwise(numbers)):
            break
    sentences, who = told(draw, steps)
    question = " ".join([*sentences, f"{who} packs them in bags of {bag}. How many are left over?"])
    total = steps[-1].after
    bags, left = divmod(total, bag)
    answer = "\n".join([*map(str, steps), f"{bag}*{bags}+{left}={total}", f"#### {left}"])
    fields = {"question": question, "answer": answer, "domain": f"{count} event{'s' * (count > 1)}"}
    return Row(f"leftover_{count}_events", fields)


def write_leftovers(
    directory: Path, *, worked: int = 900, problems: int = 1000, held_out: int = 400, seed: int = 0
) -> tuple[str, ...]:
    """Writes `directory`/reasoning, and says which files: `worked` problems with their chains, in two files `problems`
    each with the answer alone, and `held_out`. In words.jsonl are the sentences of the worked ones with numbers of one
    digit: a tokenizer that is trained on it reads larger numbers digit by digit."""
    rows = [row.fields for row in distinct(leftover, worked + 2 * problems, seed, FOLDER)]
    held = [row.fields for row in distinct(partial(leftover, held_out=True), held_out, seed, FOLDER, "held-out")]
    own = rows[:worked]
    files = {
        "worked": own,
        "first": [_without_chain(row) for row in rows[worked : worked + problems]],
        "second": [_without_chain(row) for row in rows[worked + problems :]],
        "held-out": held,
        "words": [{"text": _LATER_DIGIT.sub("", f"{row['question']}\n{row['answer']}")} for row in own],
    }
    folder = Path(directory, FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        data = (json.dumps({"id": f"{name}-{number}", **line}) + "\n" for number, line in enumerate(lines))
        (folder / f"{name}.jsonl").write_text("".join(data))
    return tuple(f"{FOLDER}/{name}.jsonl" for name in files)


def _without_chain(row: Mapping[str, str]) -> dict[str, str]:
    return {**row, "answer": row["answer"].splitlines()[-1]}

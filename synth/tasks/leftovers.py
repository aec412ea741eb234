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

from itertools import pairwise

from gristmill.synth.draw import Draw
from gristmill.synth.tasks.instructions import Row
from gristmill.synth.tasks.stories import chain, is_held_out, told

_BAGS = (3, 5)
_EVENTS = (1, 3)


def leftover(draw: Draw, *, held_out: bool = False) -> Row:
    """A problem, `question` and `answer`; of those held out, or of the others."""
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
    return Row(f"leftover_{count}_events", {"question": question, "answer": answer})

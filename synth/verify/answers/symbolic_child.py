"""The process in which math-verify compares two answers: a line of JSON in, a line of JSON out, until the input ends.

Not imported by the verifier: it is run, so that computer algebra that never ends can be killed. It limits itself, too:
its memory, and the processor time of a request by a timer whose signal ends the process whatever it computes (Python's
own handlers wait for the end of a bytecode, and `10**10**10` is one). So no parent has to be there to kill it.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from dataclasses import replace
from typing import Any


def main() -> None:
    """Serves requests `{"gold", "answer", "cpu_s"}` from stdin; replies `{"relation"}`, one of RELATIONS."""
    memory = int(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    logging.disable(logging.CRITICAL)
    import math_verify

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    replies.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["cpu_s"])
        relation = compared(math_verify, request["gold"], request["answer"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps({"relation": relation}) + "\n")


def compared(math_verify: Any, gold_text: str, answer_text: str) -> str:
    """`same`, `different`, `unparseable_gold`, `unparseable_answer`; `failed`: comparing raised, or memory ran out."""
    try:
        gold = parsed(math_verify, gold_text)
        if gold is None:
            return "unparseable_gold"
        answer = parsed(math_verify, answer_text)
        if answer is None:
            return "unparseable_answer"
        same = math_verify.verify(gold, answer, timeout_seconds=None, raise_on_error=True)  # the gold answer is first
        same = same and same_symbols(gold[0], answer[0])
    except Exception:  # of a library that parses what a model wrote: whatever it raises is no verdict
        return "failed"
    return "same" if same else "different"


def same_symbols(gold: Any, answer: Any) -> bool:
    """Whether two expressions that are said to be the same have the same variables, those apart that cancel out."""
    import sympy

    both = gold, answer
    if not all(isinstance(item, sympy.Expr) for item in both) or gold.free_symbols == answer.free_symbols:
        return True
    return bool(sympy.simplify(gold).free_symbols == sympy.simplify(answer).free_symbols)


def parsed(math_verify: Any, text: str) -> list[Any] | None:
    """A text as mathematics; None: nothing beyond a text. Raises MemoryError.

    Units are not taken out by math-verify, to which the `h` of `2\\pi h` is an hour: the caller has done it (units.py).
    """
    latex = math_verify.LatexExtractionConfig()
    latex = replace(latex, normalization_config=replace(latex.normalization_config, units=False))
    kinds = (latex, math_verify.ExprExtractionConfig())
    try:  # its own limits are alarms, which work in a main thread alone and take others' alarms away; ours is above
        items: list[Any] = math_verify.parse(f"${text}$", kinds, parsing_timeout=None, raise_on_error=True)
    except MemoryError:
        raise
    except Exception:  # whatever a parser raises upon what a model wrote: it cannot be read
        return None
    return items if any(not isinstance(item, str) for item in items) else None


if __name__ == "__main__":
    main()

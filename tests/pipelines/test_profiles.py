"""The profiles of the web pipeline: mathematics and code are kept by theirs, and not by that of prose."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from gristmill.filters.text.docs import Docs
from gristmill.pipelines.web import WebConfig, WebRecipe

CONF = Path(__file__).parents[2] / "conf"
FORMULAS = [
    "Find all real $x$ with $x^2+x-6=0$.\nWe factor: $x^2+x-6=(x-2)(x+3)=0$, so $x=2$ or $x=-3$. Both solve the "
    "equation, since $2^2+2-6=0$ and $(-3)^2-3-6=0$. The answer is $\\{2,-3\\}$.",
    "Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\nWorking 50 minutes, she earned 0.2 x 50 = $<<0.2*50=10>>10 "
    "and the rest of the day she earned 3 * 10 = $30.\n#### 10",
]
CODE = [
    "def area(r: float) -> float:\n    'Of a circle.'\n    return 3.14159 * r ** 2\n\n\n"
    "print([area(r / 2) for r in range(1, 9)])\n",
    "#include <stdio.h>\n\nint main(void) {\n    int i, n = 10, t1 = 0, t2 = 1;\n    for (i = 1; i <= n; ++i) {\n"
    '        printf("%d, ", t1);\n        t2 += t1;\n        t1 = t2 - t1;\n    }\n    return 0;\n}\n',
]


def recipe(name: str) -> WebRecipe:
    return WebConfig.model_validate(yaml.safe_load((CONF / f"{name}.yaml").read_text())).recipe


def kept(name: str, texts: list[str]) -> int:
    """How many of these texts pass the rules of a profile, language aside."""
    docs = Docs(pa.array(texts, pa.string()), languages=pa.array(["en"] * len(texts)))
    dropped = [False] * len(texts)
    for filter_ in recipe(name).screen.filters:
        if filter_.name != "language":
            verdicts = filter_.judge(docs).to_pylist()
            dropped = [out or verdict is not None for out, verdict in zip(dropped, verdicts, strict=True)]
    return dropped.count(False)


@pytest.mark.parametrize(("profile", "texts"), [("web-math", FORMULAS), ("web-code", CODE)])
def test_a_profile_keeps_what_web_drops(profile: str, texts: list[str]) -> None:
    assert kept("web", texts) == 0
    assert kept(profile, texts) == len(texts)


@pytest.mark.parametrize("profile", ["web-math", "web-code"])
def test_a_profile_still_drops_what_says_nothing(profile: str) -> None:
    assert kept(profile, ["", "1 2 3", "buy now " * 200, "= - + * / " * 60]) == 0


def shared(folder: Path, name: str, *fields: str) -> list[str]:
    rows = [json.loads(line) for line in (folder / "3_math_code" / name).read_text(encoding="utf-8").splitlines()]
    return ["\n".join(str(row[field]) for field in fields) for row in rows]


def test_real_problems_and_programs(shared_data: Path) -> None:
    problems = shared(shared_data, "math_test.jsonl", "problem", "solution")[:600]
    problems += shared(shared_data, "gsm8k_train.jsonl", "question", "answer")[:600]
    programs = shared(shared_data, "humaneval.jsonl", "prompt", "canonical_solution")
    programs += shared(shared_data, "mbpp.jsonl", "text", "code")
    assert kept("web", problems) < 0.02 * len(problems) and kept("web-math", problems) > 0.95 * len(problems)
    assert kept("web", programs) < 0.01 * len(programs) and kept("web-code", programs) > 0.97 * len(programs)


def test_languages_are_judged_by_their_own() -> None:
    names = [filter_.name for filter_ in recipe("web-languages").screen.filters]
    assert names == ["language", "gopher_quality", "language_quality"]

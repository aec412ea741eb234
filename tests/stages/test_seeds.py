"""Seeds: pages of mathematics are told from others, and the part that has most of it is shown."""

from __future__ import annotations

import json
from pathlib import Path

from gristmill.stages.text.seeds import density, excerpt, signs

NEWS = "The mill by the river was sold on Friday, and its new owner wants to open a bakery in it next year."


def test_signs_of_mathematics():
    assert signs(NEWS) == 0 == density("")
    assert signs(r"By the theorem $\frac{a}{b} \leq \sqrt{2}$.") == 4
    assert signs("x = 3, f(x) = 2 and a<b") == 3 and signs("x == y; mathsy theorems-like") == 0
    assert density("so x = 3") == 1000 / 4


def test_the_part_with_most_signs_is_shown():
    lines = [NEWS] * 20 + ["Let x = 3.", "Then x + 1 = 4."] + [NEWS] * 20
    shown = excerpt("\n\n".join(lines), 150)
    assert "Let x = 3.\nThen x + 1 = 4." in shown and len(shown) <= 150
    assert excerpt("  short \n", 150) == "short"
    assert excerpt("y = 1 " * 100, 60) == ("y = 1 " * 10)[:60], "one paragraph is cut"
    assert excerpt("\n".join([NEWS] * 5), 210) == f"{NEWS}\n{NEWS}", "the first of equals"


def test_pages_and_solutions_lie_far_apart(shared_data: Path):
    with open(shared_data / "2_pages" / "pages.gold.jsonl") as file:
        pages = [row["main_text"] for line in file if (row := json.loads(line)).get("main_text")]
    with open(shared_data / "3_math_code" / "math_test.jsonl") as file:
        solutions = [json.loads(line)["solution"] for line in list(file)[:1000]]
    pages = [page for page in pages if len(page.split()) >= 100]
    assert len(pages) >= 80 and max(map(density, pages)) < 5
    assert sum(density(solution) > 10 for solution in solutions) > 0.99 * len(solutions)

"""Formulas come once, as TeX where the page has TeX."""

from __future__ import annotations

import pytest

from gristmill.stages.text.formulas import once
from gristmill.stages.text.html import ExtractConfig, extract

ROW = "<mrow><mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup></mrow>"
TEX = '<annotation encoding="application/x-tex">E = m c^{2}</annotation>'
MATHML = f"<math><semantics>{ROW}{TEX}</semantics></math>"
KATEX = (
    f'<span class="katex"><span class="katex-mathml">{MATHML}</span><span class="katex-html" aria-hidden="true">'
    '<span class="base"><span class="mord">E</span><span class="mrel">=</span></span><span>mc2</span></span></span>'
)
WIKIPEDIA = (
    '<span class="mwe-math-element"><span class="mwe-math-mathml-inline mwe-math-mathml-a11y" style="display: none;">'
    f'{MATHML}</span><img src="x.svg" class="mwe-math-fallback-image-inline" alt="E = m c^{{2}}"></span>'
)
MATHJAX = (
    '<span class="MathJax_Preview">E=mc2</span><span class="MathJax"><nobr><span>E=mc2</span></nobr>'
    f'<span class="MJX_Assistive_MathML"><math>{ROW}</math></span></span><script type="math/tex">E=mc^2</script>'
)
CONTENT = (
    f'<math><semantics>{ROW}<annotation-xml encoding="MathML-Content"><apply><eq/><ci>E</ci></apply></annotation-xml>'
    "</semantics></math>"
)


@pytest.mark.parametrize("main_content", [True, False])
@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (MATHML, "E = m c^{2}"),
        (MATHML.replace("<math>", "<math alttext=\"a<b>\" display='x>y'>"), "E = m c^{2}"),
        (MATHML.replace("math", "MATH").replace("annotation", "ANNOTATION"), "E = m c^{2}"),
        (MATHML.replace("E = m", "a &lt; b, m"), "a < b, m c^{2}"),
        (MATHML.replace("application/x-tex", "LaTeX"), "E = m c^{2}"),
        (MATHML.replace("application/x-tex", "StarMath 5.0"), "E=mc2"),
        (MATHML.replace("E = m c^{2}", " "), "E=mc2"),
        (KATEX, "E = m c^{2}"),
        (WIKIPEDIA, "E = m c^{2}"),
        (MATHJAX, "E=mc2"),
        (CONTENT, "E=mc2"),
        (f"<math>{ROW}</math>", "E=mc2"),
        (f"<math>{ROW}", "E=mc2"),
    ],
)
def test_once(formula, text, main_content) -> None:
    page = f"<html><body><article><p>Einstein found {formula} in 1905, as everybody knows.</p></article></body></html>"
    extracted = extract(page, ExtractConfig(main_content=main_content))
    assert extracted.split() == f"Einstein found {text} in 1905, as everybody knows.".split()


def test_what_is_no_formula_stays() -> None:
    for page in ("</math><p>x</p><math>", "<mathematics>x</mathematics>", "<p>a < b</p>", "<math><math>x</math>"):
        assert once(page) == page


@pytest.mark.parametrize(
    "unit", ["<math>", "</math>", "<math a='", "<annotation>", "<math><annotation>", "<math x</math>"]
)
def test_steps_are_in_proportion_to_the_input(unit, counted_lines) -> None:
    page = "<math>{}</math>" if "annotation" in unit else "{}"
    steps = [
        counted_lines("gristmill.stages.text.formulas", lambda n=n: once(page.format(unit * (1000 * n))))
        for n in (1, 2, 4)
    ]
    assert steps[1] <= 2.2 * steps[0] + 50 and steps[2] <= 4.4 * steps[0] + 100, steps

"""The trained extractor: what it keeps as it stands, what it leaves out, and that no page makes it slow or silent.

long: tables of pages, one row a kind.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction import model, vocabulary
from gristmill.filters.extraction.extractor import (
    Blocks,
    add_context,
    assembled,
    features,
    grown,
    judged,
    main_text,
    segment,
    whole_text,
)
from gristmill.filters.extraction.tables import hash_of, tables

PROSE = (
    "The variance of an estimator measures how far its values lie from their mean, and it is the quantity that we want "
    "to keep small when we choose a design for the study."
)


def article(part: str) -> str:
    """A page whose article has `part` between paragraphs of prose, with the furniture of a page around."""
    return (
        '<html><head><title>Variance</title></head><body><nav><ul><li><a href="/">Home</a></li>'
        '<li><a href="/a">About us</a></li></ul></nav><main><article><h1>Variance of estimators</h1>'
        f"<p>{PROSE} {PROSE}</p><p>{PROSE}</p>{part}<p>{PROSE} {PROSE}</p><p>{PROSE}</p></article></main>"
        '<aside class="sidebar related"><ul><li><a href="/1">Ten estimators you should know</a></li><li>'
        '<a href="/2">Read more</a></li></ul></aside><footer>Copyright 2020 Example Inc. All rights reserved.</footer>'
        "</body></html>"
    )


def texts_of(blocks: Blocks) -> list[str]:
    return [blocks.text[row[c.START] : row[c.END]].tobytes().decode() for row in blocks.rows]


def parts(html: str) -> list[str]:
    """The blocks of a page, as texts."""
    return texts_of(segment(html.encode()))


# What is kept


def test_the_article_is_kept_and_what_is_around_it_is_not() -> None:
    text = main_text(article(""))
    assert text.count(PROSE) == 6 and "Variance of estimators" in text
    for furniture in ("About us", "Ten estimators", "Read more", "Copyright"):
        assert furniture not in text


ROW = "<mrow><mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup></mrow>"
TEX = '<annotation encoding="application/x-tex">E = m c^{2}</annotation>'
MATHML = f"<math><semantics>{ROW}{TEX}</semantics></math>"
FORMULAS = {
    "MathML with TeX": (MATHML, "$E = m c^{2}$"),
    "on a line of its own": (MATHML.replace("<math>", "<math display='block'>"), "$$E = m c^{2}$$"),
    "TeX by another name": (MATHML.replace("application/x-tex", "LaTeX"), "$E = m c^{2}$"),
    "an annotation that is no TeX": (MATHML.replace("application/x-tex", "StarMath 5.0"), "E=mc2"),
    "an empty annotation": (MATHML.replace("E = m c^{2}", " "), "E=mc2"),
    "capitals": (MATHML.replace("math", "MATH").replace("annotation", "ANNOTATION"), "$E = m c^{2}$"),
    "MathML alone": (f"<math>{ROW}</math>", "E=mc2"),
    "MathML that nobody closed": (f"<math>{ROW}", "E=mc2"),
    "alttext": (f"<math alttext='a &lt; b'>{ROW}</math>", "$a < b$"),
    "KaTeX": (
        f'<span class="katex"><span class="katex-mathml">{MATHML}</span><span class="katex-html" aria-hidden="true">'
        '<span class="base"><span class="mord">E</span><span>=</span></span><span>mc2</span></span></span>',
        "$E = m c^{2}$",
    ),
    "MathJax 2": (
        '<span class="MathJax_Preview">E=mc2</span><span class="MathJax"><nobr><span>E=mc2</span></nobr><span '
        f'class="MJX_Assistive_MathML"><math>{ROW}</math></span></span><script type="math/tex">E=mc^2</script>',
        "$E=mc^2$",
    ),
    "MathJax 3": (
        '<mjx-container class="MathJax"><mjx-math><mjx-mi>E</mjx-mi></mjx-math><mjx-assistive-mml>'
        f"<math>{ROW}</math></mjx-assistive-mml></mjx-container>",
        "E=mc2",
    ),
    "a script": ('<script type="math/tex; mode=display">\\int_0^1 x\\,dx</script>', "$$\\int_0^1 x\\,dx$$"),
    "a picture": ('<img class="math" alt="\\frac{a}{b}" src="x.png">', "$\\frac{a}{b}$"),
    "a picture that says it is a formula": ('<img class="latex" alt="x" src="x.png">', "$x$"),
    "two pictures": ('<img alt="\\alpha"><img alt="\\beta">', "$\\alpha$$\\beta$"),
    "Wikipedia": (
        f'<span class="mwe-math-element"><span class="mwe-math-mathml-inline" style="display: none;">{MATHML}</span>'
        '<img src="x.svg" class="mwe-math-fallback-image-inline" alt="E = m c^{2}"></span>',
        "$E = m c^{2}$",
    ),
    "between signs": ("\\(a^2+b^2\\)", "\\(a^2+b^2\\)"),
}


@pytest.mark.parametrize("form", FORMULAS)
def test_a_formula_comes_once(form: str) -> None:
    formula, expected = FORMULAS[form]
    page = article(f"<p>Einstein found {formula} in 1905, as everybody knows who has read about it, and so do we.</p>")
    line = f"Einstein found {expected} in 1905, as everybody knows who has read about it, and so do we."
    assert line in main_text(page).split("\n")


def test_no_picture_is_taken_for_a_formula() -> None:
    assert parts("<p>a <img alt='A dog' src=d.png> b <img class=latex alt=''> c</p>") == ["a b c"]


CODE = "def var(xs):\n    m = sum(xs) / len(xs)\n    for x in xs:\n        if x > m:\n            yield x"


def test_code_keeps_its_indentation() -> None:
    code = CODE.replace(">", "&gt;")
    assert CODE in main_text(article(f"<p>The following code computes it:</p><pre><code>{code}\n</code></pre>"))
    lined = CODE.replace(">", "&gt;").replace("\n", "<br>")
    assert parts(f"<pre>\n  {lined}  \n\n</pre>") == ["  " + CODE]
    highlighted = "<pre><span class=k>if</span> x:\n\t<span>y</span></pre>"
    assert parts(highlighted) == ["if x:\n\ty"]


def test_rows_of_a_table_keep_their_cells() -> None:
    table = (
        "<p>The two designs compare as follows, where the variance is that of the estimated mean of all units:</p>"
        "<table><tr><th>Design</th><th>Variance</th></tr><tr><td>simple</td><td>4.25</td></tr><tr><td><p>stratified"
        "</p></td><td><b>2</b>.50</table>"
    )
    assert "Design\tVariance\nsimple\t4.25\nstratified\t2.50\n" in main_text(article(table))


def test_cells_that_lay_a_page_out_are_no_row() -> None:
    blocks = segment(f"<table><tr><td>{PROSE} {PROSE}</td><td>{PROSE}</td></tr></table>".encode())
    assert assembled(blocks, np.ones(2, np.bool_)) == f"{PROSE} {PROSE}\n\n{PROSE}"


def test_items_of_lists_are_marked() -> None:
    listed = (
        "<p>Two steps.</p><ul><li>Draw.<li><b>Weigh</b> them.<ul><li>twice</ul></ul><ol><li>a<li><p>b</p><p>c</p></ol>"
    )
    everything = np.ones(7, np.bool_)
    blocks = segment(listed.encode())
    assert assembled(blocks, everything) == "Two steps.\n\n- Draw.\n- Weigh them.\n- twice\n1. a\n2. b\nc"
    assert assembled(blocks, everything, items=False) == "Two steps.\n\nDraw.\nWeigh them.\ntwice\na\nb\nc"
    assert parts("<ol>" + "<li>x" * 11 + "</ol>") == ["x"] * 11
    long = segment(b"<ol>" + b"<li>x" * 11 + b"</ol>")
    assert assembled(long, np.ones(11, np.bool_)).endswith("\n9. x\n10. x\n11. x")


# How a page is read


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("a<br>b<br><br>c<br />d", ["a\nb", "c\nd"]),
        ("<p>a<p>b</p>c<div>d</div>", ["a", "b", "c", "d"]),
        (
            "a &amp; b&nbsp;&lt;c&gt; &#233;&#xe9;&eacute; &copy 1 &nothing; &#0;",
            ["a & b <c> ééé © 1 &nothing; \ufffd"],
        ),
        ("&#150;&#8203;x&shy;y\u00ady&#xD800;", ["\u2013xyy\ufffd"]),
        ("1 < 2 and 3<4 <!-- no > --> <!x> <?y?> </ z> 5", ["1 < 2 and 3<4 5"]),
        ("<!-->a<!-- b --!>c<!-- d", ["ac"]),
        ("<script>if (a < b) '</p>'</script>x<style>p{}</style><title>t</title><textarea>u</textarea>", ["x"]),
        ("a<script>var x = '<p>b</p>'", ["a"]),
        ("a<iframe>b<p>c", ["ab", "c"]),
        ("<p class='a>b' title=\"c>d\">e</p>", ["e"]),
        ("<p class=x/>a</p><br/>b", ["a", "b"]),
        ("<head><title>t</title><p>no body tag", ["no body tag"]),
        ("<select><option>a<option>b<p>after a menu that nobody closed", ["after a menu that nobody closed"]),
        ("<svg><text>s</text><div>after a picture</div>", ["after a picture"]),
        ("<button>b</button><noscript>n</noscript><template>t</template>x", ["x"]),
        ("<div><button>b</div>x", ["x"]),
        ("<table><tr><td>a</div><td>b</p></table>c", ["a", "b", "c"]),
        ("<b>bo<i>ld</b>ly</i> <A HREF=x>Link</A>", ["boldly Link"]),
        ("a\0b\x01c\x7f", ["abc"]),
        ("日本語の<b>文</b>章です。", ["日本語の文章です。"]),
        ("x <", ["x"]),
        ("x </", ["x </"]),
        ("x <p", ["x"]),
        ("x <p class='", ["x"]),
        ("", []),
        ("<p> &nbsp; </p>", []),
    ],
)
def test_blocks(html: str, expected: list[str]) -> None:
    assert parts(html) == expected


@pytest.mark.parametrize("size", range(20))
def test_what_is_passed_over_ends_where_it_ends(size: int) -> None:
    """Eight bytes are looked at together: whatever comes behind, before or between."""
    filling = "x" * size
    before = [filling] if size else []
    assert parts(f"{filling}<script>{filling}<{filling}</script>y") == [f"{filling}y"]
    assert parts(f"{filling}<!--{filling}-->{filling}<!--{filling}->--!>y") == [f"{filling}{filling}y"]
    assert parts(f"<p>{filling}<!--></p><p>y</p><!--->{filling}") == [*before, "y"]
    assert parts(f"{filling}<p class='{filling}>{filling}' {filling}=\"{filling}'>\">y") == [*before, "y"]
    assert parts(f"<button>{filling}</button>y</{filling}><noscript>{filling}<b>{filling}") == ["y"]


def test_what_a_block_counts() -> None:
    blocks = segment(
        "<article class='entry-content'><p>It is 1 <a href=x>OK link</a>, isn’t it? Ja!</p></article>".encode()
    )
    (row,) = blocks.rows
    assert [row[c.CHARS], row[c.LINK_CHARS], row[c.LINKS]] == [23, 6, 1]
    assert [row[c.WORDS], row[c.DIGITS], row[c.CAPITALS], row[c.ENDS], row[c.COMMAS]] == [8, 1, 4, 2, 1]
    assert row[c.STOPS] == 4  # it is it ja; isn’t is one word, for ’ may be a letter
    assert row[c.LAST] == 4 and row[c.TAG] == vocabulary.ID["p"] and row[c.DEPTH] == 2
    assert row[c.ANCESTORS] == c.IN_ARTICLE
    assert row[c.INHERITED] == (1 << 10) | (1 << 11) | (1 << 13)  # entry, content, entry-content


def test_classes_and_phrases_are_found_in_any_case_and_between_any_signs() -> None:
    blocks = segment(b'<div id="Main_NAV"><p>Read MORE &copy; 2020</p></div><p style="display : none">x</p>')
    first, second = blocks.rows
    assert first[c.INHERITED] & 1 and first[c.LEXICON] == 0b1001
    assert second[c.INHERITED] >> c.HIDDEN_BIT & 1


def test_tables_know_every_word() -> None:
    known = tables()
    keys, values = known.tags
    for tag in vocabulary.TAGS[1:]:
        key = hash_of(tag)
        place = (key ^ (key >> 32)) & (len(keys) - 1)
        while keys[place] != key:
            assert keys[place] != 0, tag
            place = (place + 1) & (len(keys) - 1)
        assert values[place] == vocabulary.ID[tag]
    for group, words in enumerate(vocabulary.ATTRIBUTE_WORDS):
        for word in words.split():
            state, separator = 0, 26
            for letter in (separator, *known.attributes.classes[list(word.encode())].tolist()):
                state = int(known.attributes.after[state + letter])
            row = (state - known.attributes.marked) >> c.WORD_WIDTH
            assert row >= 0 and known.attributes.groups[row] >> group & 1, word


def test_no_phrase_begins_with_a_space() -> None:
    """The pass goes over white space without a look at each."""
    phrases = tables().phrases
    assert phrases.after[phrases.classes[ord(" ")]] == 0


# No page is silent


@pytest.mark.parametrize(
    "html",
    [
        "<noscript>Only without scripts.</noscript>",
        "<nav><a href=x>Home</a></nav>",
        "<select><option>A choice</select>",
        "<div hidden>Hidden</div>",
        "<svg><text>Drawn</text></svg>",
        "<button>OK",
        "x",
    ],
)
def test_there_is_text_where_there_is_text(html: str) -> None:
    assert main_text(html) or whole_text(html)


def test_of_a_page_that_shows_text_the_hidden_is_left_out() -> None:
    assert whole_text("<noscript>n</noscript><p>x</p>") == "x"
    assert whole_text("<script>x</script><style>y</style><!-- z -->") == ""


# No page is slow


HOSTILE = {
    "paragraphs": "<p>t",
    "divisions in one another": "<div>",
    "links in one another": "<a href=x>t",
    "tables in one another": "<table><tr><td>t",
    "items in one another": "<ul><li>t",
    "end tags": "</div>",
    "bold across blocks": "<div><b></div></b>",
    "frames that nobody closes": "<iframe>t",
    "scripts that nobody closes": "<script>",
    "styles that nobody closes": "<style>t",
    "titles that nobody closes": "<title>t",
    "formulas that nobody closes": "<math>t",
    "formulas": "<math><annotation></math>",
    "formulas across paragraphs": "<math><p>t",
    "annotations": "<annotation>",
    "comments that nobody closes": "<!--",
    "less": "<",
    "and": "&",
    "numbers": "&#1",
    "breaks": "<br> ",
    "menus": "<select><option>t",
    "options": "<option>t",
    "heads": "<head>",
    "bodies": "<body class=a>",
    "words": "word ",
    "zeros": "\0",
    "form feeds": "<p\x0c>t",
    "attributes": "<p a=b c d='e'",
    "quotes": "<p a='",
    "pictures": "<svg><p>",
    "rows": "<tr>",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_steps_are_in_proportion_to_the_page(kind: str) -> None:
    sizes = (4000, 8000, 16000)  # beyond the depth of the stack, so that what is counted is not its filling
    steps = [segment((HOSTILE[kind] * size).encode()).steps for size in sizes]
    assert steps[1] <= 2.1 * steps[0] + 1000 and steps[2] <= 2.1 * steps[1] + 1000, steps
    assert steps[2] <= (3 * len(HOSTILE[kind]) + 3 * c.MAX_DEPTH) * sizes[2]


@pytest.mark.parametrize("start", ["<math><p>t", "<math display=block><p>t", "<math>t"])
def test_the_end_of_formulas_that_one_tag_closes_is_looked_for_once(start: str) -> None:
    in_depth = "<b>" * c.MAX_DEPTH
    for end in ("</math>", "<annotation encoding=tex> </annotation></math>"):
        steps = [segment((in_depth + start * size + end).encode()).steps for size in (4000, 8000)]
        assert steps[1] <= 2.1 * steps[0] + 1000, steps


def test_a_formula_that_nobody_closed_takes_no_text_up_to_the_end_of_the_next() -> None:
    formula = "<math><mi>x</mi><annotation encoding='application/x-tex'>x^2</annotation></math>"
    assert whole_text(f"<p>One <math> two.</p><p>Three {formula} four.</p>") == "One two.\n\nThree $x^2$ four."


def test_a_script_that_nobody_closes_behind_others_is_looked_for_once() -> None:
    closed = segment(b"<script></script>" * 2000 + b"<script>" + b"x" * 50000).steps
    assert closed < 300_000


def test_one_attribute_of_many_bytes_is_one_step_a_byte() -> None:
    blocks = segment(b'<p class="' + b"ad-" * 400_000 + b'">t</p>')
    assert texts_of(blocks) == ["t"] and blocks.steps < 2 * 1_300_000


def test_blocks_are_bounded_and_no_text_is_lost() -> None:
    size = c.MAX_BLOCKS + 5000
    blocks = segment(b"<p>t" * size)
    assert len(blocks.rows) == c.MAX_BLOCKS + 1 and len(blocks.nodes) == c.MAX_BLOCKS
    text = assembled(blocks, np.ones(len(blocks.rows), np.bool_))
    assert text.count("t") == size
    assert text.splitlines()[-1] == "t"


def test_text_below_the_bound_of_the_stack_is_kept() -> None:
    depth = 100_000
    html = "<div>" * depth + f"<p>{PROSE}</p>" + "</div>" * depth + f"<p>{PROSE} {PROSE}</p>"
    assert parts(html) == [PROSE, f"{PROSE} {PROSE}"]
    blocks = segment(html.encode())
    assert blocks.rows[1][c.DEPTH] == 1  # all those divisions are closed again


@settings(deadline=None)  # the first call compiles
@given(st.text(alphabet=st.sampled_from("<>/!-='\" apdivtrblsxmh&#;0\0é\n"), max_size=200))
def test_any_page_has_a_text(html: str) -> None:
    blocks = segment(html.encode())
    table = features(blocks)
    assert np.isfinite(table[: c.FEATURES, : len(blocks.rows)]).all()
    for row in blocks.rows:
        assert row[c.START] < row[c.END] <= len(blocks.text) and row[c.CHARS] > 0
    assert main_text(html) == main_text(html)


# The model


def forest(*trees: tuple[int, float, float, float]) -> model.Forest:
    """Trees with one split each: (feature, threshold, value of what is at most it, value of what is more)."""
    rows = []
    for number, (feature, threshold, low, high) in enumerate(trees):
        at = 3 * number
        rows += [(feature, threshold, at + 1, at + 2, 0.0), (-1, 0.0, 0, 0, low), (-1, 0.0, 0, 0, high)]
    return of_nodes(rows, range(0, 3 * len(trees), 3))


def of_nodes(rows: list[tuple[int, float, int, int, float]], roots: Iterable[int]) -> model.Forest:
    """rows: (feature, threshold, left, right, value) of each node."""
    columns = [np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), model.TYPES, strict=False)]
    return model.Forest(*[*columns, np.array(list(roots), np.int32)])


def grow_tree(rows: list[tuple[int, float, int, int, float]], draw: random.Random, leaves: int) -> int:
    """Adds a tree of so many leaves, of any shape, over the features 0 to 9; returns its root."""
    at = len(rows)
    rows.append((-1, 0.0, 0, 0, draw.uniform(-0.6, 0.6)))
    if leaves > 1:
        on_the_left = draw.randrange(1, leaves)
        threshold = float(draw.randrange(-3, 4))
        left, right = grow_tree(rows, draw, on_the_left), grow_tree(rows, draw, leaves - on_the_left)
        rows[at] = (draw.randrange(10), threshold, left, right, 0.0)
    return at


def walked(grown_forest: model.Forest, values: np.ndarray) -> float:
    """The sum of the leaves that a block, float32 [features], reaches, by walking; as far as it is settled."""
    total = np.float32(0)
    for tree, root in enumerate(grown_forest.roots):
        if tree % 25 == 0 and not -3 < total < 3:
            break
        node = root
        while grown_forest.feature[node] >= 0:
            goes_left = values[grown_forest.feature[node]] <= grown_forest.threshold[node]
            node = (grown_forest.left if goes_left else grown_forest.right)[node]
        total += grown_forest.value[node]
    return float(total)


def exact_logistic(margin: float) -> float:
    """What a forest's sum becomes."""
    odds = 1 + margin / 256
    for _ in range(8):
        odds *= odds
    return odds / (1 + odds)


def logistic(margin: float) -> float:
    """What a forest's sum becomes, to a hundredth the logistic function."""
    chance = exact_logistic(margin)
    assert chance / (1 - chance) == pytest.approx(math.exp(margin), rel=0.02)
    return chance


@pytest.mark.parametrize("blocks", [1, 63, 64, 65, 300])
def test_a_forest_says_what_walking_down_its_trees_says(blocks: int) -> None:
    draw = random.Random(blocks)
    rows: list[tuple[int, float, int, int, float]] = []
    roots = [grow_tree(rows, draw, draw.randrange(1, model.MOST_LEAVES + 1)) for _ in range(110)]
    trees = of_nodes(rows, roots)
    table = np.full((10, c.width_of(blocks)), np.nan, np.float32)  # nothing of the columns behind is a block's
    table[:, :blocks] = np.random.default_rng(blocks).integers(-4, 5, (10, blocks))  # many on a threshold
    chances = np.empty(blocks)
    grown(table, trees, chances)
    sums = [walked(trees, table[:, block]) for block in range(blocks)]
    assert chances.tolist() == [exact_logistic(total) for total in sums]
    assert blocks < 300 or 30 < sum(not -3 < total < 3 for total in sums) < 270


def test_a_tree_with_more_leaves_than_bits_is_refused() -> None:
    rows: list[tuple[int, float, int, int, float]] = []
    root = grow_tree(rows, random.Random(1), model.MOST_LEAVES + 1)
    with pytest.raises(ValueError, match="33 leaves"):
        _ = of_nodes(rows, [root]).conditions


def test_a_forest_sums_its_trees() -> None:
    blocks = segment(b"<p>one two<p>" + b"word " * 30)
    table, chances = features(blocks), np.empty(2)
    grown(table, forest((1, 2.0, -1.0, 1.0), (0, 1e9, 0.5, 9.0)), chances)
    assert chances.tolist() == pytest.approx([logistic(-0.5), logistic(1.5)])


def test_what_is_kept_is_measured_against_the_page() -> None:
    """On a page that is sure of itself, a middling block is out; where all are middling, they are in."""
    page = b"".join(b"<p>" + b"word " * words for words in (30, 30, 30, 5))
    share = 0.6
    sure = model.Model(forest((0, 1.0, 0, 0)), forest((1, 10.0, -0.5, 3.0)), share)
    blocks = segment(page)
    assert judged(blocks, sure).tolist() == [True, True, True, False]
    unsure = model.Model(sure.first, forest((1, 10.0, -0.5, -0.4)), share)
    assert judged(segment(page), unsure).all()


def test_the_context_is_what_the_first_forest_says_of_the_neighbours() -> None:
    blocks = segment(b"<p>one two<p>" + b"word " * 30 + b"<p>three four")
    table, chances = features(blocks), np.empty(3)
    add_context(blocks, forest((1, 10.0, -3.0, 3.0)), table, chances)
    low, high = logistic(-3), logistic(3)
    assert chances.tolist() == pytest.approx([low, high, low])
    context = table[c.FEATURES :, :3].T
    assert context[:, 0].tolist() == pytest.approx([low, high, low])
    assert context[0, 1:7].tolist() == pytest.approx([-0.1, -0.1, -0.1, high, low, -0.1])


def test_a_model_is_stored_and_read_back() -> None:
    written = model.Model(forest((1, 2.5, -1.0, 1.0)), forest((0, 1.0, 0.5, 0.25)), 0.35)
    content = model.stored(written)
    assert model.stored(written) == content
    read = model.parsed(content)
    assert read.share == 0.35
    for forest_read, forest_written in ((read.first, written.first), (read.second, written.second)):
        assert [array.tolist() for array in astuple(forest_read)] == [a.tolist() for a in astuple(forest_written)]


def test_a_model_of_another_vocabulary_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = model.stored(model.Model(forest((1, 2.5, -1.0, 1.0)), forest((0, 1.0, 0.5, 0.25)), 0.35))
    monkeypatch.setattr(model, "vocabulary_digest", lambda: "another")
    with pytest.raises(ValueError, match="another vocabulary"):
        model.parsed(content)


def test_the_shipped_model_fits_the_features() -> None:
    shipped = model.shipped_model()
    assert shipped.first.feature.max() < c.FEATURES <= shipped.second.feature.max() < c.FEATURES + c.CONTEXT
    assert model.SHIPPED.stat().st_size < 400_000
    assert 0 < shipped.share < 1

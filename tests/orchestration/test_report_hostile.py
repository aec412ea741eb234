"""What others wrote, wherever it may stand on a page, is text there: it cannot run, load, hide or forge anything."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import lxml.html
import numpy as np
import pytest
from drafts import draft
from lake_builder import Page, commit, pages
from PIL import Image
from reports import ATTACK, HOSTILE, LONG, check, report, words

from gristmill.lake.query.query import Description, Node
from gristmill.lake.query.sampling import Drawn, SampledRecord
from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import FunnelRow
from gristmill.lake.versions.versions import Versions
from gristmill.model.runs.curve import Curve
from gristmill.orchestration.report.html import LONGEST, element, escaped, foreign
from gristmill.orchestration.report.page import drawn_page
from gristmill.orchestration.report.pieces import LONGEST_NAME
from gristmill.orchestration.report.subject import Scores, Subject, Work


def harmless(root: Any) -> None:
    """Nothing of the attack became an element: `check` looked at attributes and characters."""
    assert len(list(root.iter("script"))) == len(list(root.iter("style"))) == 1
    assert not [image for image in root.iter("img") if image.get("src") == "x"]
    assert ATTACK[:40] in words(root)
    texts = [element.text or "" for element in root.iter() if element.tag not in ("script", "style")]
    assert max(map(len, texts)) < 2000


def test_urls_texts_values_reasons_and_names_of_files(store: Store, tmp_path: Path) -> None:
    url = f"https://example.org/{ATTACK}"
    special = {
        "p1": Page(url),
        "p2": Page(f"{url}2", f"quality.{ATTACK}", ATTACK + "\u202e"),
        "p3": Page(f"{url}3", "exact.duplicate", None, url),
        "p4": Page("https://example.org/\u202e/" + LONG),
    }
    m = commit(store, "web", pages(5, **special), file=f"crawl/{ATTACK}.gz", recipe={"quality": {ATTACK: ATTACK}})
    assert m.kept.count == 3
    root = report(store, tmp_path, "web")
    harmless(root)
    assert "quality.</script>" in words(root) and "\\u202e" in words(root)
    assert f"crawl/{ATTACK}"[:60] in words(root)


def hostile(store: Store, form: str, statistics: dict[str, Any]) -> Any:
    """A manifest all of whose names are hostile; no lake would commit it."""
    row = FunnelRow(stage=HOSTILE, received=2, passed=0, dropped={HOSTILE: 1}, quarantined={ATTACK: 1})
    names = {"commit": HOSTILE, "at": HOSTILE, "host": HOSTILE, "packages": {HOSTILE: HOSTILE}}
    m = Versions(store).commit(draft("web", form, ["a"], form=form))
    return m.model_copy(update={"dataset": HOSTILE, "funnel": (row,), "statistics": statistics, "made": names})


STATISTICS: dict[str, dict[str, Any]] = {
    "documents": {"documents": 1, "languages": {HOSTILE: 1}, "bytes_from": {"0": 1, "500": 2}},
    "model": {
        "parameters": 3,
        "parts": {HOSTILE: 3},
        "gates": {HOSTILE: {"passed": False, "why": HOSTILE}},
    },
    "verdicts": {
        "items": 1,
        "unscored": 0,
        "written": 1,
        "cut": 0,
        "scores": [
            {"task": HOSTILE, "metric": HOSTILE, "source": HOSTILE, "value": 0.5, "low": 0.1, "high": 0.9, "items": 1}
        ],
        "warnings": [HOSTILE],
        "devices": [HOSTILE],
    },
}


@pytest.mark.parametrize("form", STATISTICS)
@pytest.mark.parametrize("count", [1, 2])
def test_names_labels_and_reasons_of_manifests(store: Store, form: str, count: int) -> None:
    m = hostile(store, form, STATISTICS[form])
    record = SampledRecord(
        id=HOSTILE,
        fate="kept",
        reason=None,
        value=HOSTILE,
        text=HOSTILE,
        why_no_text=None,
        place=None,
        fields={
            HOSTILE: HOSTILE,
            "samples": [{"verdict": HOSTILE, "reason": HOSTILE, "text": HOSTILE}],
            "media": media(),
        },
    )
    subject = Subject(
        Description(m, (HOSTILE,), HOSTILE),
        Node(
            HOSTILE, HOSTILE, HOSTILE, problem=HOSTILE, origins=(Node(HOSTILE + "2", HOSTILE, "", withdrawn=HOSTILE),)
        ),
        curve=Curve((1,), (2.0,), (2.0,), (0.1,), (1.0,), (), (), 1, 2.0, {HOSTILE: (1.0,)}),
        kept=Drawn(HOSTILE, 1, (record,)),
        refused={HOSTILE: (record,)},
        scores=(Scores(HOSTILE, [0.1, 0.9], 2, 2),),
        works=(Work("a", HOSTILE, 1.0, 1.0, 1),),
    )
    other = Subject(Description(m.model_copy(update={"version": 2}), (), None), Node("x", "", ""))
    text = drawn_page([subject, other][:count], HOSTILE)
    check(text)
    harmless(lxml.html.document_fromstring(text))


def media() -> list[dict[str, Any]]:
    """An image and a clip with hostile names, and two files that are neither."""
    picture, clip = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (9, 7)).save(picture, "PNG")
    with wave.open(clip, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.zeros(8000, "<i2").tobytes())
    script = f"<svg xmlns='http://www.w3.org/2000/svg'>{ATTACK}</svg>".encode()
    rows = [("image", picture.getvalue()), ("audio", clip.getvalue()), ("image", script), ("audio", script)]
    return [{"kind": kind, "url": HOSTILE, "data": data, "height": HOSTILE, "width": 9} for kind, data in rows]


def test_what_is_put_into_an_element_is_escaped_unless_it_is_markup() -> None:
    assert element("p", "<b>", element("i", "&")) == "<p>&lt;b&gt;<i>&amp;</i></p>"
    assert element("a", "x", title='"><script>\n') == '<a title="&quot;&gt;&lt;script&gt;\\n">x</a>'
    assert escaped("\u202e\x00") == "\\u202e\\x00" and escaped(None) == ""
    assert element("img", alt="", hidden=True, src=None, width=3) == '<img alt="" hidden width="3">'


@pytest.mark.parametrize("name", ["style", "onclick", "onerror"])
def test_styles_and_scripts_of_elements_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="policy"):
        element("p", "x", **{name: "y"})


def test_no_text_is_longer_than_a_page_bears() -> None:
    assert element("p", LONG) == f"<p>{'W' * LONGEST}… (9,000 characters)</p>"
    assert "9,000" in element("p", aria_label=LONG) and len(element("img", src=LONG)) > 9000


def test_a_long_name_is_cut_and_says_how_long_it_was() -> None:
    assert foreign("ab", 2) == "<bdi>ab</bdi>"
    assert foreign(LONG, LONGEST_NAME).startswith(f"<bdi>{'W' * LONGEST_NAME}…</bdi>") and "9,000" in foreign(LONG, 5)
